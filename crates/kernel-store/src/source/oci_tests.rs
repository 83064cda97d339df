use super::is_reference;

#[test]
fn a_reference_names_host_and_tag() {
    for good in ["ghcr.io/cilium/ci-kernels:6.6", "quay.io/lvh-images/kernel-images:6.6-main", "localhost:5000/a/b:1"] {
        assert!(is_reference(good), "{good}");
    }
    for bad in
        ["ci-kernels:6.6", "cilium/ci-kernels:6.6", "ghcr.io/a", "ghcr.io/a@sha256:00", "ghcr.io/a:b c", "-x.io/a:b"]
    {
        assert!(!is_reference(bad), "{bad}");
    }
}
