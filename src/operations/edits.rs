//! A person's edit of a file that we wrote, and our next version of it, in one file.

/// `ours` with what a person changed to make `theirs`, where the two touch different lines; none
/// where they touch the same, or where what came out is no YAML any more. `written` is what we wrote
/// at other times, the newest first: the one nearest to theirs is what they edited.
pub(super) fn with_theirs(
    path: &str,
    written: &[String],
    theirs: &str,
    ours: &str,
) -> Option<String> {
    let base = written.iter().min_by_key(|base| changed_lines(base, theirs))?;
    let both = diffy::merge(base, ours, theirs).ok()?;
    let yaml = path.ends_with(".yml");
    let good = !yaml || serde_saphyr::from_str::<serde_json::Value>(&both).is_ok();
    good.then_some(both)
}

fn changed_lines(one: &str, other: &str) -> usize {
    let patch = diffy::create_patch(one, other);
    let lines = patch.hunks().iter().flat_map(|hunk| hunk.lines());
    lines.filter(|line| !matches!(line, diffy::Line::Context(_))).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "a: 1\nb: 2\nc: 3\nd: 4\ne: 5\nf: 6\ng: 7\n";

    fn with(from: &str, to: &str) -> String {
        OLD.replace(from, to)
    }

    #[test]
    fn an_edit_elsewhere_is_kept_beside_our_change() {
        let (theirs, ours) = (with("a: 1", "a: 10"), with("g: 7", "g: 70"));
        let written = [ours.clone(), OLD.to_owned()];
        let both = with_theirs("x.yml", &written, &theirs, &ours).expect("both");
        assert_eq!(both, ours.replace("a: 1", "a: 10"));
        // And once more: our side is as it was, so nothing changes.
        assert_eq!(with_theirs("x.yml", &written, &both, &ours), Some(both.clone()));
    }

    #[test]
    fn an_edit_in_the_same_place_is_never_overwritten() {
        let (theirs, ours) = (with("d: 4", "d: 40"), with("d: 4", "d: 41"));
        assert_eq!(with_theirs("x.yml", &[OLD.to_owned()], &theirs, &ours), None);
        // Nothing is known of what they edited.
        assert_eq!(with_theirs("x.yml", &[], &theirs, &ours), None);
    }

    #[test]
    fn what_is_no_yaml_any_more_is_not_written() {
        let (theirs, ours) = (with("a: 1", "a: [1"), with("g: 7", "g: 70"));
        assert_eq!(with_theirs("x.yml", &[OLD.to_owned()], &theirs, &ours), None);
        assert!(with_theirs("ssh_config", &[OLD.to_owned()], &theirs, &ours).is_some());
    }
}
