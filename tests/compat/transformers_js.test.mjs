// transformers.js on Node loads an export as it is and says what quantship says: `nox -s compat`.

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { describe, test } from "node:test";

import { AutoModelForCausalLM, AutoTokenizer, LogLevel, Tensor, env } from "@huggingface/transformers";

const exports = process.env.QUANTSHIP_COMPAT_EXPORTS;
const readme = process.env.QUANTSHIP_COMPAT_README;
const expected = JSON.parse(readFileSync(join(exports, "expected.json"), "utf8"));

env.allowRemoteModels = false;
env.localModelPath = exports;
env.logLevel = LogLevel.NONE; // what fails is expected to, or fails a test

/** What the model appends to prompts of one length, up to and without its stop token. */
async function continued(model, prompts, limit = 24) {
  const length = prompts[0].length;
  const inputs = new Tensor("int64", prompts.flat().map(BigInt), [prompts.length, length]);
  const output = await model.generate({ inputs, max_new_tokens: limit, do_sample: false });
  const end = model.generation_config.eos_token_id;
  return output.tolist().map((row) => {
    const added = row.slice(length).map(Number);
    return added.includes(end) ? added.slice(0, added.indexOf(end)) : added;
  });
}

for (const [name, { alone, together }] of Object.entries(expected.exports)) {
  describe(name, async () => {
    const model = await AutoModelForCausalLM.from_pretrained(name, { subfolder: "" });
    const tokenizer = await AutoTokenizer.from_pretrained(name);

    test("greedy tokens are quantship's", async () => {
      for (const { prompt, tokens } of alone) {
        assert.deepEqual(await continued(model, [prompt]), [tokens]);
      }
    });

    test("a batch of prompts of one length is continued as by quantship", async () => {
      assert.deepEqual(await continued(model, together.prompts), together.tokens);
    });

    test("prompts padded on the left are refused", async () => {
      const batch = tokenizer(["a longer prompt", "a prompt"], { padding: true });
      const [longer, shorter] = batch.attention_mask.tolist();
      assert.deepEqual([longer[0], shorter[0]], [1n, 0n]); // it pads where generate() wants it
      await assert.rejects(
        model.generate({ ...batch, max_new_tokens: 2 }),
        /takes prompts of one length, or padded on the right/,
      );
    });

    test("the tokenizer reads text and chats alike", () => {
      for (const { text, prompt } of alone) {
        assert.deepEqual(tokenizer.encode(text), prompt);
        assert.equal(tokenizer.decode(prompt), text);
      }
      const { messages, text } = expected.chat;
      const options = { tokenize: false, add_generation_prompt: true };
      assert.equal(tokenizer.apply_chat_template(messages, options), text);
    });
  });
}

describe("a pushed repository", () => {
  const { models } = expected.published;
  for (const dtype of [undefined, ...Object.keys(models)]) {
    test(`says what quantship says, with dtype ${dtype}`, async () => {
      const { text, prompt, tokens } = models[dtype ?? "q8"]; // which its config.json names
      const tokenizer = await AutoTokenizer.from_pretrained("published");
      assert.deepEqual(tokenizer.encode(text, { add_special_tokens: false }), prompt);
      const model = await AutoModelForCausalLM.from_pretrained("published", dtype ? { dtype } : {});
      assert.deepEqual(await continued(model, [prompt]), [tokens]);
    });
  }
});

test("the README shows it as it works", async () => {
  const blocks = [...readFileSync(readme, "utf8").matchAll(/^```js\n(.*?)^```$/gms)];
  const [snippet, ...others] = blocks.map(([, block]) => block);
  assert.equal(others.length, 0);
  const { text, prompt, tokens } = expected.exports["w8a8-nbits"].alone[1];
  const replacements = [
    ['"artifacts/runs/quickstart/models/"', JSON.stringify(exports)],
    ['"qat-w8a8-onnx"', '"w8a8-nbits"'],
    ['"Once upon a time"', JSON.stringify(text)],
  ];
  const here = replacements.reduce((code, [shown, ours]) => {
    assert.equal(code.split(shown).length, 2, `${shown} once in the README`);
    return code.replace(shown, ours);
  }, snippet);
  const file = join(import.meta.dirname, "readme.mjs"); // beside node_modules, to find them
  writeFileSync(file, here);
  const shown = execFileSync(process.execPath, [file], { encoding: "utf8" });
  const tokenizer = await AutoTokenizer.from_pretrained("w8a8-nbits");
  assert.ok(shown.startsWith(tokenizer.decode([...prompt, ...tokens])), shown);
});
