//! tests/fake-nvml
