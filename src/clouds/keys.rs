//! SSH keys as every cloud keeps them: one entry per key, under whatever name.

/// Whether two public keys in OpenSSH's form are the same key, whatever their comments: this says
/// the same as their fingerprints.
pub(super) fn same_key(one: &str, other: &str) -> bool {
    let material = |key: &str| {
        let mut words = key.split_whitespace().map(str::to_owned);
        (words.next(), words.next())
    };
    material(one) == material(other)
}
