//! What a slow or lossy link does to frames: when each arrives, if it does. Pure: the relay has
//! the clock and the devices.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::VecDeque;
use std::time::Duration;

/// The longest queue before a link of limited rate, in the time that it takes to send it. What
/// comes when the queue is longer is dropped.
const QUEUE: Duration = Duration::from_millis(250);

/// The most frames on the way in one direction; at 1500 bytes each these are 30 MB.
const ON_THE_WAY: usize = 20_000;

/// The properties of the link between a host and the network, the same in both directions. The
/// default is a link that only the kernel limits.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Link {
    /// How long each frame is on the way, in milliseconds.
    pub delay_ms: u64,
    /// By how much more that may be, in milliseconds, evenly distributed. Frames keep their order.
    pub jitter_ms: u64,
    /// How many of a hundred frames are lost: 0 to 100, evenly distributed.
    pub loss_percent: f64,
    /// Millions of bits in a second, at least 1; unlimited if it is not given.
    pub rate_mbit: Option<u32>,
}

/// One direction of a link.
#[derive(Debug)]
pub(super) struct Lane {
    on_the_way: VecDeque<(Duration, Vec<u8>)>,
    /// When the last frame has been sent.
    free_at: Duration,
    chance: SplitMix,
}

impl Lane {
    /// One on which nothing is on the way. Equal seeds lose the same frames.
    pub(super) fn new(seed: u64) -> Self {
        let on_the_way = VecDeque::new();
        Self { on_the_way, free_at: Duration::ZERO, chance: SplitMix(seed) }
    }

    /// A frame comes to the link. Answers whether the link takes it.
    pub(super) fn offer(&mut self, link: &Link, frame: Vec<u8>, now: Duration) -> bool {
        if self.chance.fraction() * 100.0 < link.loss_percent {
            return false;
        }
        let starts = self.free_at.max(now);
        if starts > now + QUEUE || self.on_the_way.len() >= ON_THE_WAY {
            return false;
        }
        let bits = 8 * frame.len() as u64;
        let takes = |mbit: u32| Duration::from_nanos(bits * 1000 / u64::from(mbit.max(1)));
        self.free_at = starts + link.rate_mbit.map_or(Duration::ZERO, takes);
        let more = Duration::from_millis(link.jitter_ms).mul_f64(self.chance.fraction());
        let arrives = self.free_at + Duration::from_millis(link.delay_ms) + more;
        let after = self.on_the_way.back().map_or(Duration::ZERO, |(before, _)| *before);
        self.on_the_way.push_back((arrives.max(after), frame));
        true
    }

    /// When the next frame arrives.
    pub(super) fn next(&self) -> Option<Duration> {
        self.on_the_way.front().map(|(arrives, _)| *arrives)
    }

    /// The next frame, if it has arrived.
    pub(super) fn take(&mut self, now: Duration) -> Option<Vec<u8>> {
        self.next().filter(|arrives| *arrives <= now)?;
        self.on_the_way.pop_front().map(|(_, frame)| frame)
    }
}

/// Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014.
#[derive(Debug)]
struct SplitMix(u64);

impl SplitMix {
    /// At least 0, less than 1.
    fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    /// When each of `count` frames of 1250 bytes arrives that come at once, at 10 s.
    fn arrivals(link: Link, count: usize) -> Vec<Duration> {
        let mut lane = Lane::new(1);
        (0..count).for_each(|n| {
            lane.offer(&link, vec![n as u8; 1250], ms(10_000));
        });
        lane.on_the_way.iter().map(|(arrives, _)| *arrives - ms(10_000)).collect()
    }

    #[test]
    fn the_default_link_does_nothing() {
        assert_eq!(arrivals(Link::default(), 3), [Duration::ZERO; 3]);
    }

    #[test]
    fn delay_is_the_same_for_all() {
        assert_eq!(arrivals(Link { delay_ms: 40, ..Link::default() }, 2), [ms(40); 2]);
    }

    #[test]
    fn a_frame_is_there_when_it_has_arrived() {
        let mut lane = Lane::new(1);
        let link = Link { delay_ms: 5, ..Link::default() };
        assert!(lane.offer(&link, vec![7], ms(100)));
        assert_eq!(lane.next(), Some(ms(105)));
        assert_eq!(lane.take(ms(104)), None);
        assert_eq!(lane.take(ms(105)), Some(vec![7]));
        assert_eq!((lane.next(), lane.take(ms(105))), (None, None));
    }

    #[test]
    fn frames_wait_for_those_before_them() {
        // 1250 bytes are 10,000 bits: a millisecond each.
        let link = Link { rate_mbit: Some(10), delay_ms: 3, ..Link::default() };
        assert_eq!(arrivals(link, 3), [ms(4), ms(5), ms(6)]);
    }

    #[test]
    fn a_full_queue_drops() {
        let link = Link { rate_mbit: Some(10), ..Link::default() };
        assert_eq!(arrivals(link, 1000).len(), 251);
        assert_eq!(arrivals(Link::default(), ON_THE_WAY + 1).len(), ON_THE_WAY);
    }

    #[test]
    fn jitter_spreads_and_keeps_the_order() {
        let found = arrivals(Link { delay_ms: 10, jitter_ms: 20, ..Link::default() }, 100);
        assert!(found.is_sorted());
        assert!(found.iter().all(|arrives| (ms(10)..ms(30)).contains(arrives)));
        assert!(found[0] < found[99]);
    }

    #[test]
    fn loss_is_what_was_asked_for() {
        let arrive = |loss_percent| arrivals(Link { loss_percent, ..Link::default() }, 10_000);
        assert_eq!(arrive(100.0).len(), 0);
        assert_eq!(arrive(0.0).len(), 10_000);
        let lost = 10_000 - arrive(2.0).len();
        assert!((150..250).contains(&lost), "{lost} of 10000");
    }
}
