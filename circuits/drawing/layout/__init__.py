"""Layout: the places of all that a scene shows, column by column and run by run, without a graph solver.

Start with `schedule` (columns), then `sweep` (orders), `runs` (heights), `row` and `picture` (marks).
"""
