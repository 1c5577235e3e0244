"""What is read where the user names no text: prose, dialogue, code, numbers, other languages."""

BUILT_IN = """\
The lighthouse stood at the end of a narrow spit of land, where two currents met. Every evening the
keeper climbed its hundred and twelve steps with a can of oil in one hand and a book in the other.
"You read too much," said his sister, who came on Sundays with bread and news of the village. "And
you talk too much," he answered, "but I would not have it otherwise." In the winter of that year a
ship ran aground within sight of the lamp. Nobody could say afterwards why the captain had not
turned; the night was clear, the sea was calm, and the light had never burned brighter.

Water boils at 100 degrees Celsius at sea level, but on a mountain 3,000 metres high it boils at
about 90 degrees, because the pressure of the air is lower there. That is why potatoes take longer
to cook in the Andes than in Amsterdam.

def mean_and_deviation(values):
    mean = sum(values) / len(values)
    squares = [(value - mean) ** 2 for value in values]
    return mean, (sum(squares) / len(values)) ** 0.5

Question: A train leaves at 9:40 and arrives at 13:05. How long is the journey?
Answer: From 9:40 to 13:00 are three hours and twenty minutes, and five minutes more make three
hours and twenty-five minutes.

Der Zug nach München fährt heute von Gleis sieben ab, und er hat wie immer Verspätung. La biblioteca
cierra a las ocho, así que tenemos tiempo para tomar un café. Les enfants jouent dans le jardin
pendant que leur mère prépare le dîner.

{"name": "quartz", "hardness": 7, "colours": ["clear", "rose", "smoky"], "formula": "SiO2"}

| year | sales | change |
|------|------:|-------:|
| 2021 | 1,204 |      – |
| 2022 | 1,377 |  +14 % |
| 2023 | 1,290 |   -6 % |

The committee met for the third time in March. It agreed on two points and put off the others: the
bridge will be repaired before the summer, and the school gets a new roof. Whether the road along
the river is to be widened remains open, since the owners of the meadows have objected. They fear
for the storks, which have nested there for as long as anyone can remember, and they may be right.
"""
