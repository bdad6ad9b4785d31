"""The controller in a cluster: the API server, the Lease, and the control ports of the other replicas."""
