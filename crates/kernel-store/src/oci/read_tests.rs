use super::*;

#[test]
fn kernels_of_little_vm_helper_are_found() {
    assert_eq!(within("data/kernels/6.6-main/boot/vmlinuz-6.6.30"), "boot/vmlinuz-6.6.30");
    assert_eq!(within("./data/kernels/a/../../x"), "../../x", "which is refused later");
    assert_eq!(within("boot/vmlinuz"), "boot/vmlinuz");
    assert_eq!(within("data/kernels"), "data/kernels");
}

#[test]
fn a_layout_without_the_image_says_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let told = |tag: Option<&str>| {
        let error = ContainerImage::tagged(dir.path(), tag).err().unwrap().to_string();
        error.replace(&dir.path().display().to_string(), "DIR")
    };
    assert_eq!(told(None), "DIR: is no OCI layout: it has no file oci-layout");
    write(MARK.0, MARK.1);
    write(INDEX, "{\"manifests\": [");
    assert!(told(None).contains("DIR/index.json: is damaged (EOF"), "{}", told(None));
    write(INDEX, "{\"manifests\": []}");
    assert_eq!(told(None), "DIR: has no images");
    let image = |tag: &str| {
        let digest = "0".repeat(64);
        format!(r#"{{"mediaType":"x","digest":"sha256:{digest}","size":3,"annotations":{{"{TAG}":"{tag}"}}}}"#)
    };
    write(INDEX, &format!("{{\"manifests\": [{}, {}]}}", image("6.6"), image("6.12")));
    assert_eq!(told(None), "DIR: has several images: name one by `tag` (6.6, 6.12)");
    assert_eq!(told(Some("6.1")), "DIR: has no image of tag 6.1; it has 6.6, 6.12");
    assert!(told(Some("6.6")).contains("does not exist, and the image needs it"), "{}", told(Some("6.6")));
    write(INDEX, &image("6.6").replace("sha256:", "sha256:../"));
    assert!(told(None).contains("has no images"));
    write(INDEX, &format!("{{\"manifests\": [{}]}}", image("6.6").replace("sha256:", "sha256:../")));
    assert!(told(None).contains("is no SHA-256 or SHA-512 checksum"), "{}", told(None));
}
