//! What may come in from another member: raft takes a message that makes no sense for a fault of
//! its own and panics, so that it gets none.

use super::id::NodeId;
use prost::Message as _;
use proto::limit::{LOG_MESSAGE_BYTES_MAX, LOG_SNAPSHOT_BYTES_MAX};
use raft::eraftpb::{EntryType, Message, MessageType};

/// Bytes of a snapshot's message beside the snapshot.
const SNAPSHOT_HEAD_BYTES: usize = 64 << 10;

/// Why a message was refused. The connection that it came by is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// It is too large.
    #[error("A message of {found} bytes came from node {from}; at most {limit} are taken")]
    TooLarge {
        /// Who sent it.
        from: NodeId,
        /// Its bytes.
        found: usize,
        /// How many there may be.
        limit: usize,
    },
    /// It can't be read, or no member would send it.
    #[error(
        "A message from node {from} makes no sense: {what}. Do all coordinators have the same \
         version?"
    )]
    Senseless {
        /// Who sent it.
        from: NodeId,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// A message that can be given to [`Driver::receive`](super::Driver::receive).
#[derive(Debug, Clone, PartialEq)]
pub struct Checked(pub(super) Box<Message>);

/// Reads a message that came from a node, of which the connection has made sure, to this one.
///
/// Reads and proposals that a follower passes on to its leader are not taken: whoever wants one
/// asks the leader itself.
pub fn check(me: NodeId, from: NodeId, bytes: &[u8]) -> Result<Checked, BadMessage> {
    let limit = LOG_SNAPSHOT_BYTES_MAX + SNAPSHOT_HEAD_BYTES;
    if bytes.len() > limit {
        return Err(BadMessage::TooLarge { from, found: bytes.len(), limit });
    }
    let bad = |what| BadMessage::Senseless { from, what };
    let message = Message::decode(bytes).map_err(|_| bad("it is no message"))?;
    let kind = MessageType::from_i32(message.msg_type).ok_or(bad("its kind is unknown"))?;
    if kind != MessageType::MsgSnapshot && bytes.len() > LOG_MESSAGE_BYTES_MAX {
        let limit = LOG_MESSAGE_BYTES_MAX;
        return Err(BadMessage::TooLarge { from, found: bytes.len(), limit });
    }
    sense(me, from, kind, &message).map_err(bad)?;
    Ok(Checked(Box::new(message)))
}

fn sense(me: NodeId, from: NodeId, kind: MessageType, m: &Message) -> Result<(), &'static str> {
    use MessageType::{
        MsgAppend, MsgAppendResponse, MsgHeartbeat, MsgHeartbeatResponse, MsgRequestPreVote,
        MsgRequestPreVoteResponse, MsgRequestVote, MsgRequestVoteResponse, MsgSnapshot,
        MsgTimeoutNow,
    };
    if m.to != me.get() {
        return Err("it is for another node");
    }
    if m.from != from.get() || from == me {
        return Err("it is from another node than it says");
    }
    // Raft takes a message without a term for one of its own.
    if m.term == 0 || m.log_term > m.term || m.commit_term > m.term {
        return Err("its term is wrong");
    }
    match kind {
        MsgAppend => entries(m),
        MsgSnapshot => snapshot(m),
        MsgAppendResponse
        | MsgHeartbeat
        | MsgHeartbeatResponse
        | MsgRequestPreVote
        | MsgRequestPreVoteResponse
        | MsgRequestVote
        | MsgRequestVoteResponse
        | MsgTimeoutNow => match m.entries.is_empty() && m.snapshot.is_none() {
            true => Ok(()),
            false => Err("it has entries or a snapshot"),
        },
        _ => Err("its kind is not sent between members"),
    }
}

fn entries(m: &Message) -> Result<(), &'static str> {
    let mut expected = (m.index, m.log_term);
    for entry in &m.entries {
        if EntryType::from_i32(entry.entry_type).is_none() {
            return Err("the kind of an entry is unknown");
        }
        if Some(entry.index) != expected.0.checked_add(1) || entry.term < expected.1.max(1) {
            return Err("its entries are out of order");
        }
        expected = (entry.index, entry.term);
    }
    match expected.1 <= m.term && m.snapshot.is_none() {
        true => Ok(()),
        false => Err("its entries are from a later term"),
    }
}

fn snapshot(m: &Message) -> Result<(), &'static str> {
    let metadata = m.get_snapshot().get_metadata();
    let members = metadata.get_conf_state();
    if metadata.index == 0 || metadata.term == 0 || metadata.term > m.term {
        return Err("its snapshot has no place in the log");
    }
    match members.voters.is_empty() || !m.entries.is_empty() {
        true => Err("its snapshot has no members"),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use raft::eraftpb::{ConfState, Entry, Snapshot, SnapshotMetadata};

    const ME: NodeId = NodeId::new(1).unwrap();
    const PEER: NodeId = NodeId::new(2).unwrap();

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, ..Entry::default() }
    }

    fn message(kind: MessageType) -> Message {
        Message { msg_type: kind as i32, to: 1, from: 2, term: 5, ..Message::default() }
    }

    fn append(entries: Vec<Entry>) -> Message {
        Message { index: 7, log_term: 4, entries, ..message(MessageType::MsgAppend) }
    }

    fn refused(message: &Message) -> &'static str {
        match check(ME, PEER, &message.encode_to_vec()) {
            Err(BadMessage::Senseless { what, .. }) => what,
            Err(error) => panic!("{error}"),
            Ok(_) => "",
        }
    }

    #[test]
    fn what_members_send_is_taken() {
        assert_eq!(refused(&append(vec![entry(8, 4), entry(9, 5)])), "");
        assert_eq!(refused(&message(MessageType::MsgHeartbeat)), "");
        let conf_state = Some(ConfState { voters: vec![1], ..ConfState::default() });
        let metadata = Some(SnapshotMetadata { conf_state, index: 3, term: 5 });
        let snapshot = Some(Snapshot { data: vec![1], metadata });
        assert_eq!(refused(&Message { snapshot, ..message(MessageType::MsgSnapshot) }), "");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let heartbeat = message(MessageType::MsgHeartbeat);
        assert_eq!(refused(&Message { to: 3, ..heartbeat.clone() }), "it is for another node");
        assert!(refused(&Message { from: 3, ..heartbeat.clone() }).contains("than it says"));
        assert_eq!(refused(&Message { term: 0, ..heartbeat.clone() }), "its term is wrong");
        assert_eq!(refused(&Message { log_term: 6, ..heartbeat.clone() }), "its term is wrong");
        assert_eq!(refused(&Message { msg_type: 99, ..heartbeat.clone() }), "its kind is unknown");
        assert!(refused(&Message { entries: vec![entry(1, 1)], ..heartbeat }).contains("entries"));
        for bad in [vec![entry(9, 5)], vec![entry(8, 3)], vec![entry(8, 5), entry(9, 4)]] {
            assert_eq!(refused(&append(bad)), "its entries are out of order");
        }
        assert!(refused(&append(vec![entry(8, 6)])).contains("later term"));
        let odd = Entry { entry_type: 7, ..entry(8, 5) };
        assert_eq!(refused(&append(vec![odd])), "the kind of an entry is unknown");
        assert!(refused(&message(MessageType::MsgSnapshot)).contains("no place"));
    }

    #[test]
    fn what_is_not_for_peers_is_refused() {
        use MessageType::{MsgHup, MsgPropose, MsgReadIndex, MsgReadIndexResp, MsgTransferLeader};
        for kind in [MsgHup, MsgPropose, MsgReadIndex, MsgReadIndexResp, MsgTransferLeader] {
            assert!(refused(&message(kind)).contains("not sent between members"), "{kind:?}");
        }
    }

    #[test]
    fn a_large_message_is_refused() {
        let data = vec![0; LOG_MESSAGE_BYTES_MAX];
        let large = append(vec![Entry { data, ..entry(8, 5) }]).encode_to_vec();
        assert!(matches!(check(ME, PEER, &large), Err(BadMessage::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn random_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = check(ME, PEER, &bytes);
        }

        #[test]
        fn a_changed_byte_does_not_panic(at in any::<usize>(), byte in any::<u8>()) {
            let mut bytes = append(vec![entry(8, 4), entry(9, 5)]).encode_to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = check(ME, PEER, &bytes);
        }
    }
}
