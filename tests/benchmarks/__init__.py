"""How fast and how small: figures beside their yardsticks, measured in one run. `make bench` runs them all."""
