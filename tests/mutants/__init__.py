"""Mutation check: whether a test fails when the code is changed in a way that is plausible and wrong.

`python -m tests.mutants` applies the changes of `named` and a selection of generated ones to the modules of
`selection`, one at a time, and runs the tests of the module.
"""
