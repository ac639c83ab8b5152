//! Names that say their own address: `shop-staging.203-0-113-7.sslip.io` resolves to 203.0.113.7,
//! by the servers of sslip.io, without an account or a record.

use std::net::IpAddr;

use crate::domain::names::{Domain, EnvironmentPath};

/// What all such names end in.
pub const ZONE: &str = "sslip.io";
/// What a person has to know of them.
pub const CAVEAT: &str = "best effort: all of sslip.io shares one limit of certificates at Let's \
                          Encrypt, which has been used up before; a domain of your own has none of that";

/// The name of an environment at an address.
pub fn name(path: &EnvironmentPath, address: IpAddr) -> Option<Domain> {
    let spelled = match address {
        IpAddr::V4(v4) => v4.to_string().replace('.', "-"),
        IpAddr::V6(v6) => v6.to_string().replace(':', "-"),
    };
    // A label neither begins nor ends with a hyphen, and `::` may stand at either end.
    let spelled = match (spelled.starts_with('-'), spelled.ends_with('-')) {
        (false, false) => spelled,
        (begins, ends) => {
            let (front, back) = (if begins { "0" } else { "" }, if ends { "0" } else { "" });
            format!("{front}{spelled}{back}")
        }
    };
    format!("{}.{spelled}.{ZONE}", path.service()).parse().ok()
}

/// Whether a domain is one of these.
pub fn is_one(domain: &Domain) -> bool {
    domain.as_str().ends_with(".sslip.io")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_spells_its_address() {
        let path: EnvironmentPath = "shop/staging".parse().expect("a path");
        let of = |address: &str| {
            name(&path, address.parse().expect("an address")).map(|name| name.to_string())
        };
        assert_eq!(of("203.0.113.7").as_deref(), Some("shop-staging.203-0-113-7.sslip.io"));
        assert_eq!(of("2001:db8::1").as_deref(), Some("shop-staging.2001-db8--1.sslip.io"));
        assert_eq!(of("::1").as_deref(), Some("shop-staging.0--1.sslip.io"));
    }
}
