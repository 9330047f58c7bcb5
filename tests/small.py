"""A pipeline whose run takes a second, on a data set that needs no download."""

SMALL = """
dataset: {name: glyphs, train: [cyrillic], test: [georgian], val_script: cyrillic}
augment: {level: 1}
tasks: {name: views, way: 3, shot: 2, query: 1, meta_batch: 1}
model: {backbone: {name: conv4, width: 4}}
inner: {steps: 1}
outer: {steps: 4}
evaluate: {every: 2, way: 3, query: 2, episodes: 4, val_episodes: 4}
"""
