//! What every process tells: who it is, what it uses, what it said and moved.

use cache::net::{SERVICES, traffic};
use ops::telemetry::remarks;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// One label.
type Label = [(&'static str, &'static str); 1];

/// Clock ticks of `/proc/PID/stat` in a second: the same on all of Linux's architectures (proc(5),
/// `USER_HZ`).
const TICKS: f64 = 100.0;

/// The metrics.
pub struct ProcessMetrics {
    memory: Gauge,
    descriptors: Gauge,
    cpu: Counter<f64, AtomicU64>,
    remarks: Family<Label, Counter>,
    sent: Family<Label, Counter>,
    received: Family<Label, Counter>,
}

/// Sets a counter to what was counted elsewhere.
pub fn set(counter: &Counter, value: u64) {
    counter.inner().store(value, Relaxed);
}

impl ProcessMetrics {
    /// Lets them be asked for.
    pub fn register(registry: &mut Registry) -> Self {
        let info = Family::<Label, Gauge>::default();
        info.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
        registry.register("slipway_info", "1, with the version of Slipway that runs", info);
        let this = Self {
            memory: Gauge::default(),
            descriptors: Gauge::default(),
            cpu: Counter::default(),
            remarks: Family::default(),
            sent: Family::default(),
            received: Family::default(),
        };
        let started = Gauge::<f64, AtomicU64>::default();
        started.set(crate::clock::now_ms() as f64 / 1000.0);
        let help = "When the process began, in seconds since 1970";
        registry.register("process_start_time_seconds", help, started);
        let help = "Bytes of memory that the process has";
        registry.register("process_resident_memory_bytes", help, this.memory.clone());
        let help = "Files and sockets that the process has open";
        registry.register("process_open_fds", help, this.descriptors.clone());
        let help = "Processor time of the process, without its containers, in seconds";
        registry.register("process_cpu_seconds", help, this.cpu.clone());
        let help = "Warnings and errors that were written to the log";
        registry.register("slipway_log_messages", help, this.remarks.clone());
        let help = "Bytes of frames that were sent, by service";
        registry.register("slipway_sent_bytes", help, this.sent.clone());
        let help = "Bytes of frames that were received, by service";
        registry.register("slipway_received_bytes", help, this.received.clone());
        this.measure();
        this
    }

    /// Brings them up to how things are.
    pub fn measure(&self) {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        self.memory.set(resident(&read("/proc/self/statm"), rustix::param::page_size()));
        let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        // The one by which they are counted is not among them.
        self.descriptors.set(open.saturating_sub(1) as i64);
        let seconds = cpu_seconds(&read("/proc/self/stat"));
        self.cpu.inner().store(seconds.to_bits(), Relaxed);
        let said = remarks();
        for (level, count) in [("error", said.errors), ("warn", said.warnings)] {
            set(&self.remarks.get_or_create(&[("level", level)]), count);
        }
        for (service, name) in SERVICES {
            let traffic = traffic(service);
            let label = [("service", name)];
            set(&self.sent.get_or_create(&label), traffic.sent.load(Relaxed));
            set(&self.received.get_or_create(&label), traffic.received.load(Relaxed));
        }
    }
}

/// Bytes that are in memory, from `/proc/PID/statm` (proc(5)).
fn resident(text: &str, page: usize) -> i64 {
    let pages = text.split(' ').nth(1).and_then(|field| field.parse::<i64>().ok());
    pages.unwrap_or(0).saturating_mul(page as i64)
}

/// Processor time in user mode and in the kernel, from `/proc/PID/stat` (proc(5)).
fn cpu_seconds(text: &str) -> f64 {
    // The program's name stands in parentheses, and may have spaces in it.
    let after = text.rsplit_once(") ").map_or("", |(_, after)| after);
    let ticks = after.split(' ').skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / TICKS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_files_are_read() {
        assert_eq!(resident("1000 250 100 1 0 50 0\n", 4096), 250 * 4096);
        assert_eq!(resident("", 4096), 0);
        let stat = "12 (a ) b) S 1 12 12 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 9 0 100 1 1";
        assert!((cpu_seconds(stat) - 3.0).abs() < 1e-9);
        assert!(cpu_seconds("").abs() < 1e-9);
        let own = std::fs::read_to_string("/proc/self/statm").unwrap();
        assert!(resident(&own, rustix::param::page_size()) > 1 << 20);
    }
}
