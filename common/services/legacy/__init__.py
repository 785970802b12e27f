"""Taking over what wxiai, the program that was here before, has written: read its tables, never write them.

A door goes through `parts.PARTS` batch by batch and commits each; `totals` then proves that nothing is missing.
"""
