"""Train a network: what is planned, the loop, its steps, the scores and the files that it keeps.

`loop.steps` is a generator: whoever runs it asks for one event after the other, and stops by asking no more. Everything
that a step depends on is a pure function of the seed and its number (`Schedule.rate`, the patches, their augmentation,
dropout), so a run can be repeated and resumed.
"""
