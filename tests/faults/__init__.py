"""The fault battery: every row of the contract in a child process of its own, with limits.

python -m tests.faults        prints the table: faults tried, held, lost
pytest tests/faults           the same rows, one test each

rows.py, training.py      the faults and what must happen      models.py    the bad files
run.py       a child with limits, a canary, hashes      child.py     what runs inside it
"""
