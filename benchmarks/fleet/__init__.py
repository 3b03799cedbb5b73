"""A model of a fleet of workers, and what it says: see `fleet_simulation.py`."""
