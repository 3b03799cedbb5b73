"""One disk, many machines: what is handed to workers elsewhere, and what comes back.

Whatever runs functions elsewhere will do (`Submits`): nothing here knows where they run.
"""
