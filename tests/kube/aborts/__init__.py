"""The three ways to abort in a cluster, on one installation of the chart with three replicas."""
