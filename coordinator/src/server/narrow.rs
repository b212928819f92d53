//! What a request may make of its client's scope and priority: narrower and lower, never more.

use crate::core::facts::Who;
use proto::error::{Class, Failure};
use proto::id::Scope;

/// The scope that is asked for by its name within the project of `own`; `own` itself without one.
pub fn scope(own: &Scope, asked: Option<&str>) -> Result<Scope, Failure> {
    let Some(text) = asked else { return Ok(own.clone()) };
    let whole =
        if text.contains(':') { text.to_owned() } else { format!("{}:{text}", own.project()) };
    let scope = Scope::parse(&whole).map_err(|e| Failure::new(Class::User, e.to_string()))?;
    match own.admits(&scope) {
        true => Ok(scope),
        false => {
            let message = format!("You may not work in the scope `{scope}`: yours is `{own}`");
            Err(Failure::new(Class::Denied, message).hint(
                "A request can only narrow it: to a scope whose name goes on from it, as \
                 `branch/pr/17` from `branch/pr`. Whoever looks after the farm makes tokens for \
                 others: slipway token create --role client --scope SCOPE",
            ))
        }
    }
}

/// Who a build is for that asks for this.
pub fn who(who: Who, asked: Option<&str>, priority: Option<u8>) -> Result<Who, Failure> {
    let scope = scope(&who.scope, asked)?;
    let priority = match priority {
        Some(priority) if priority > who.priority => {
            let message = format!("Your builds have a priority of at most {}", who.priority);
            return Err(Failure::new(Class::Denied, message)
                .hint("A build can lower its priority with --priority, not raise it."));
        }
        priority => priority.unwrap_or(who.priority),
    };
    Ok(Who { scope, priority, ..who })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(scope: &str) -> Scope {
        Scope::parse(scope).unwrap()
    }

    #[test]
    fn scopes_are_narrowed_within_their_project() {
        assert_eq!(scope(&of("web:trusted"), None), Ok(of("web:trusted")));
        assert_eq!(scope(&of("web:trusted"), Some("dev/ann")), Ok(of("web:dev/ann")));
        assert_eq!(scope(&of("web:trusted"), Some("web:dev/ann")), Ok(of("web:dev/ann")));
        assert_eq!(scope(&of("branch/pr"), Some("branch/pr/17")), Ok(of("branch/pr/17")));
        for (own, asked) in [
            ("dev/ann", "trusted"),
            ("dev/ann", "dev/bob"),
            ("web:trusted", "shop:trusted"),
            ("web:trusted", "default:trusted"),
        ] {
            let refused = scope(&of(own), Some(asked)).unwrap_err();
            assert_eq!(refused.class, Class::Denied, "{own} {asked}");
        }
        assert_eq!(scope(&of("trusted"), Some("nonsense")).unwrap_err().class, Class::User);
    }

    #[test]
    fn priorities_are_lowered_only() {
        let ann = Who { name: "ann".into(), scope: of("dev/ann"), priority: 3 };
        let asked = |priority| who(ann.clone(), None, priority).map(|who| who.priority);
        assert_eq!((asked(None), asked(Some(0)), asked(Some(3))), (Ok(3), Ok(0), Ok(3)));
        assert_eq!(asked(Some(4)).unwrap_err().class, Class::Denied);
    }
}
