use super::*;
use crate::btf::tests::Written;

/// What is predicted of an object with this extern only, on a kernel without types whose configuration is `CONFIG_NET=y`.
fn of_extern(name: &str, kind: ExternKind, is_weak: bool) -> Prediction {
    let mut written = Written::default();
    written.int();
    let btf = written.bytes();
    let kernel = KernelTypes::read(&btf, Some("CONFIG_NET=y\n"), KernelVersion::new(6, 12, 0)).unwrap();
    let code = ObjectCode { externs: vec![Extern { name: name.to_owned(), is_weak, kind }], ..ObjectCode::default() };
    kernel.predict(&code, &CheckOrder::default(), &BTreeMap::new())
}

#[test]
fn what_a_weak_extern_names_may_be_missing() {
    let option = || ExternKind::Kconfig;
    for (name, kind, class) in [
        ("CONFIG_LAB_NO_SUCH", option(), LoadClass::Kconfig),
        ("LINUX_NO_SUCH", option(), LoadClass::Kconfig),
        ("bpf_no_such_variable", ExternKind::Variable, LoadClass::Ksym),
    ] {
        let strong = of_extern(name, kind.clone(), false);
        assert_eq!((strong.fails, strong.class), (true, Some(class)), "{name}: {strong:?}");
        assert_eq!(of_extern(name, kind, true), Prediction::default(), "{name}");
    }
    assert_eq!(of_extern("CONFIG_NET", option(), false), Prediction::default());
}
