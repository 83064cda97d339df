//! Selects kernels of the matrix by command line patterns.

use super::{
    class::KernelClass,
    config::{Kernel, KernelMatrix},
    error::{KernelsError, Result},
};
use lab_base::nearest::suggest;

/// The kernels that match patterns and classes, in file order.
///
/// Without patterns these are the default kernels; patterns select among all kernels. Classes narrow either selection.
///
/// # Errors
/// A pattern is invalid or matches nothing, or nothing is selected.
pub fn select<'a>(config: &'a KernelMatrix, patterns: &[String], classes: &[KernelClass]) -> Result<Vec<&'a Kernel>> {
    let ids: Vec<&str> = config.kernels.iter().map(|kernel| &*kernel.id).collect();
    let mut matchers = Vec::new();
    for pattern in patterns {
        let glob = globset::GlobBuilder::new(pattern)
            .case_insensitive(true)
            .build()
            .map_err(|error| KernelsError::BadPattern { pattern: pattern.clone(), reason: error.kind().to_string() })?;
        let matcher = glob.compile_matcher();
        if !ids.iter().any(|id| matcher.is_match(id)) {
            return Err(KernelsError::NoMatch { pattern: pattern.clone(), hint: suggest(pattern, &ids) });
        }
        matchers.push(matcher);
    }
    let of_class = |kernel: &Kernel| classes.is_empty() || classes.contains(&kernel.class);
    let named = |kernel: &Kernel| match matchers.is_empty() {
        true => kernel.default,
        false => matchers.iter().any(|matcher| matcher.is_match(&kernel.id)),
    };
    let chosen: Vec<&Kernel> = config.kernels.iter().filter(|kernel| named(kernel) && of_class(kernel)).collect();
    if chosen.is_empty() {
        let others: Vec<&str> =
            config.kernels.iter().filter(|kernel| of_class(kernel)).map(|kernel| &*kernel.id).collect();
        let hint = match others.is_empty() {
            true => "kernels.toml has no kernel of that class".to_owned(),
            false => format!("of that class kernels.toml has {}", others.join(", ")),
        };
        return Err(KernelsError::NothingSelected { hint });
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> KernelMatrix {
        let mut text = String::new();
        for (id, class, default) in [("6.1", "below-6.7", true), ("6.12", "6.7+", true), ("7.2", "6.7+", false)] {
            text += &format!(
                "[kernels.\"{id}\"]\nclass = \"{class}\"\ndefault = {default}\nsource.path.image = \"bzImage\"\n"
            );
        }
        KernelMatrix::parse(&text, "kernels.toml", "".into()).unwrap()
    }

    fn ids(patterns: &[&str], classes: &[KernelClass]) -> Result<Vec<String>> {
        let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        Ok(select(&config(), &patterns, classes)?.into_iter().map(|kernel| kernel.id.to_string()).collect())
    }

    #[test]
    fn patterns_also_select_kernels_outside_of_the_default_matrix() {
        assert_eq!(ids(&[], &[]).unwrap(), ["6.1", "6.12"]);
        assert_eq!(ids(&["*"], &[]).unwrap(), ["6.1", "6.12", "7.2"]);
        assert_eq!(ids(&[], &[KernelClass::From67]).unwrap(), ["6.12"]);
        assert_eq!(ids(&["7*", "6.1"], &[]).unwrap(), ["6.1", "7.2"]);
    }

    #[test]
    fn an_empty_selection_is_an_error() {
        let error = ids(&["6.13"], &[]).unwrap_err();
        assert!(error.is_empty_selection() && !error.is_usage());
        insta::assert_snapshot!(error, @"no kernel matches `6.13`; nearest: 6.12, 7.2");
        insta::assert_snapshot!(ids(&["zz"], &[]).unwrap_err(), @"no kernel matches `zz`; known: 6.1, 6.12, 7.2");
        insta::assert_snapshot!(ids(&["7.2"], &[KernelClass::Below67]).unwrap_err(),
            @"no kernel is left after --kernel and --class: of that class kernels.toml has 6.1");
        insta::assert_snapshot!(ids(&["{"], &[]).unwrap_err(),
            @"`{` is not a pattern for kernel ids: unclosed alternate group; missing '}' (maybe escape '{' with '[{]'?)");
    }
}
