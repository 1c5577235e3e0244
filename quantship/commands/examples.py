"""What --help shows below the options: how commands are called."""

MAIN = """\
Examples:

\b
  quantship quickstart                 run a recipe that comes with quantship
  quantship my.yaml --profile smoke    run your own, in its short form
  quantship my.yaml --set seed=1       change any of its keys
  quantship run my.yaml --plan         what would run, and what is reused
  quantship check my.yaml              everything that is wrong with it
  quantship data my.yaml               what it trains and evaluates on, token by token
  quantship explain steps.qat          what a step understands
  quantship inspect MODEL              what is in a model file
  quantship validate A B               hold two models against each other
  quantship compare artifacts          rank the models of several runs
  quantship push my.yaml --dry-run     what would go to the Hub
"""

DATA = """\
Reads what a run would read, by the same code, and keeps nothing: counts of each source, lengths,
digests, and a few records as the model reads them, with the tokens marked that the loss looks at.
Of the model, only the tokenizer is needed.

Examples:

\b
  quantship data my.yaml                              all of it
  quantship data my.yaml --limit 1000 --examples 5    the beginning of each source
  quantship data my.yaml --set data.holdout=0.1       with a share held out to evaluate on
  quantship data my.yaml --json                       for a program
"""

INSPECT = """\
MODEL is an .onnx file, a .safetensors file, or a directory with one of the two; of quantship or
from elsewhere. Nothing is run, and weights are not loaded; ONNX Runtime optimizes ONNX models once,
to show which operators it fuses on this machine.

Examples:

\b
  quantship inspect models/onnx                  inputs, layers, operators, warnings
  quantship inspect model.onnx --all             one row a tensor
  quantship inspect model.onnx --no-session      from the file alone
  quantship inspect models/qat --json            a checkpoint, for a program
"""

VALIDATE = """\
A and B are each a Hugging Face directory (float or torchao), a directory with model.onnx, or an
.onnx file. The exit code is 0 when they are equal within tolerance and 4 when they are not.

Examples:

\b
  quantship validate models/qat models/onnx                 a checkpoint and its export
  quantship validate model.onnx other.onnx --json           two ONNX models, for a program
  quantship validate models/float models/onnx --max-kl 0.05 how far quantization may go
  quantship validate A B --text book.txt --length 512       on a text of your own
  quantship validate A B --outputs-only                     stored numbers may differ
"""

COMPARE = """\
RUN is a run's directory, its report.json, or a directory of several runs. Models are ranked
together only where they were evaluated on the same data; intervals need the losses by sequence,
which lie in steps/ beside runs/.

Examples:

\b
  quantship compare artifacts                                   all runs that are there
  quantship compare artifacts/runs/qat artifacts/runs/sweep     two of them
  quantship compare here/runs/a there/runs/b --html compare.html --markdown compare.md
  quantship compare artifacts --json                            for a program
"""

PUSH = """\
RUN is a run's directory, or the recipe that made it: then what the recipe says of pushing now
counts, and all else in it must be as it was. A run of which a gate failed is not pushed. What is
there already is not sent again, and a push that was cut goes on where it stopped.

Examples:

\b
  quantship push artifacts/runs/qat                             as its recipe said
  quantship push my.yaml                                        as its recipe says now
  quantship push my.yaml --dry-run                              files and bytes; needs no network
  quantship push artifacts/runs/qat --repo me/other --model qat --model qat-onnx
  quantship push artifacts/runs/qat --license apache-2.0        where the base model states none
"""
