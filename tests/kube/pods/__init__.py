"""Pods without a kubelet or a container runtime: one node whose containers are processes of this machine.

The runner (``python -m tests.kube.pods``) is scheduler, kubelet, kube-proxy and cluster DNS in one. It lives in a
network namespace of its own with a bridge, 10.99.0.1/24, behind which every Pod has a namespace, an address and a way
to the API server; a container has its own mount and process namespace, with a root that shows this machine's programs
and the checkout read-only. Real: binding, init containers and native sidecars, probes, restarts with back-off,
projected volumes and tokens, security contexts, preStop, SIGTERM and the grace period, statuses, Services, logs.

Simplified, all of it on purpose:

- an image is an entry of a table (``images.Image``): programs of this machine, no layers, no pulls;
- a container that died waits 1, 2, 4 ... 30 s, a tenth of what a kubelet lets it wait; the first restart is at once;
- a Service's address is one rule of iptables for each port, TCP only, and hides the client's address;
- DNS answers for cluster.local only, and Services other than `kubernetes` are not in the environment;
- no resource limits, no persistent volumes, no ephemeral containers, no `kubectl exec` and `port-forward`.

Only root may do this. Whatever a run that was killed has left is removed by the next one.
"""
