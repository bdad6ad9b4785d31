"""The Dockerfile, built and run for real: no container runtime, only Debian's buildah and debootstrap."""
