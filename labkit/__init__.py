"""Multi-view, multi-task classification of lung nodules on chest CT.

The library behind the course; it implements Zhai et al., IEEE Access 2020
(https://doi.org/10.1109/ACCESS.2020.3027812). Importing it is light: torch and SimpleITK are
loaded by the modules that need them, not here.
"""

__version__ = "0.1.0"
