"""Every benchmark as one table: `python benchmarks [--pairs 15] [--out FILE]`."""

import field
import hardening
import levels
import memory
import trunk
from timing import report

report([trunk.lines, levels.lines, memory.lines, field.lines, hardening.lines], __doc__)
