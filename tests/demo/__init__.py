"""`make run`: the whole platform on this machine, with simulated providers, and a demo job at each."""
