"""Parts of the benchmark of the gate: worlds in which errors are shared, power, intervals, and adversaries."""
