"""Against a real API server: etcd, kube-apiserver and kube-controller-manager, built from their published modules."""
