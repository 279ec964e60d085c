"""Parts of the benchmark of early exit: families of worlds whose truth is known, and the rule of previous releases."""
