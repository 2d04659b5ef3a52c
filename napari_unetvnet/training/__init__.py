"""Train a network: plan, loop, steps, validation and checkpoints.

`loop.steps` is a generator of events; a caller stops it by closing it. Everything that a step depends on (learning
rate, patches, augmentation, dropout) is a pure function of the seed and the step, so a run can be repeated and resumed.
"""
