//! `slipway token ls` and `slipway token revoke`: what a coordinator answers.

use super::certificates::Office;
use crate::error::user;
use crate::talk::Talk;
use ops::identity::{Right, TokenRecord};
use proto::error::Failure;
use proto::id::Millis;
use proto::wire::admin::{Reply, TokenRow};

/// `slipway token ls`.
pub async fn list(office: &Office, talk: &Talk) -> Result<(), Failure> {
    let now = Millis(crate::clock::now_ms());
    for record in office.tokens() {
        talk.say(Reply::Token(row(&record, now))).await;
    }
    Ok(())
}

/// `slipway token revoke`: the token whose id begins so.
pub async fn revoke(office: &Office, id: &str, talk: &Talk) -> Result<(), Failure> {
    let all = office.tokens();
    let record = pick(&all, id)?;
    office.revoke(record.id).await?;
    talk.say(Reply::Text(record.id.to_string())).await;
    Ok(())
}

/// The one token whose id begins so.
fn pick<'t>(all: &'t [TokenRecord], id: &str) -> Result<&'t TokenRecord, Failure> {
    let lists = "`slipway token ls` lists them.";
    if id.starts_with("slipway-") {
        return Err(user("Expected the token's id, not the token").hint(lists));
    }
    let begins = |record: &&TokenRecord| record.id.to_string().starts_with(id);
    let found: Vec<&TokenRecord> = all.iter().filter(begins).collect();
    match found[..] {
        [one] if !id.is_empty() => Ok(one),
        [] => Err(user(format!("There is no token `{id}`")).hint(lists)),
        _ => {
            Err(user(format!("{} tokens have ids that begin with `{id}`", found.len())).hint(lists))
        }
    }
}

fn row(record: &TokenRecord, now: Millis) -> TokenRow {
    let grant = match &record.right {
        Right::Client(grant) => Some(grant),
        Right::Coordinator | Right::Worker | Right::Cache => None,
    };
    let state = match () {
        () if record.revoked => "revoked",
        () if now >= record.expires => "expired",
        () if record.uses_left == Some(0) => "used up",
        () => "good",
    };
    TokenRow {
        id: record.id.to_string(),
        role: record.right.role().to_string(),
        project: grant.map_or(String::new(), |grant| grant.project.to_string()),
        scope: grant.map_or(String::new(), |grant| grant.scope.as_str().to_owned()),
        admin: grant.is_some_and(|grant| grant.admin),
        expires: record.expires,
        uses_left: record.uses_left,
        state: state.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ops::identity::{Fingerprint, RANDOM_BYTES, Token};

    fn record(first: u8, uses: Option<u32>) -> TokenRecord {
        let mut random = [7; RANDOM_BYTES];
        random[0] = first;
        Token::mint(Right::Worker, Fingerprint::of(b"x"), random, Millis(100), uses).1
    }

    #[test]
    fn a_token_is_named_by_the_beginning_of_its_id() {
        let all = [record(0xab, None), record(0xac, None)];
        assert_eq!(pick(&all, "ab").unwrap().id, all[0].id);
        assert_eq!(pick(&all, &all[1].id.to_string()).unwrap().id, all[1].id);
        let error = |id| pick(&all, id).unwrap_err().message;
        assert_eq!(error("a"), "2 tokens have ids that begin with `a`");
        assert_eq!(error("ff"), "There is no token `ff`");
        assert!(error("slipway-worker-abc").contains("not the token"));
        assert!(pick(&all[..1], "").is_err(), "nothing is no name, also of the only one");
    }

    #[test]
    fn rows_say_how_a_token_is() {
        let state = |record: &TokenRecord, now| row(record, Millis(now)).state;
        let good = record(1, Some(1));
        assert_eq!((state(&good, 99), state(&good, 100)), ("good".into(), "expired".into()));
        let mut spent = good.clone();
        spent.spend();
        assert_eq!(state(&spent, 0), "used up");
        let revoked = TokenRecord { revoked: true, ..spent };
        assert_eq!(state(&revoked, 200), "revoked");
    }
}
