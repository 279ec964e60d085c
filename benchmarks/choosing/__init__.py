"""Parts of the benchmark of selection: games, worlds and the rules that it compares."""
