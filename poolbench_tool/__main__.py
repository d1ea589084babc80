"""`python -m poolbench_tool`: the command `loadgen`, where its console script is not on the PATH."""

from poolbench_tool import main

main()
