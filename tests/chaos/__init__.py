"""Chaos: the real stack under load, everything around and inside it failing, and the books after.

``python -m tests.chaos --seed N --minutes M --jobs J``. The seed decides every submission and every
fault, with their times; how they fall together depends on the machine as well.
"""
