//! What was found, for people and for programs.

use std::fmt::{self, Write as _};

use userfault::prelude::*;
use userfault::{MonitorStats, Uffd};

use crate::args::{Answer, Map, Order, word};
use crate::map::chart::{draw, time, width};
use crate::map::plan::Plan;
use crate::map::reader::Seen;
use crate::memory;
use crate::size::Size;
use crate::words;

pub(crate) struct Report<'a> {
    pub(crate) map: &'a Map,
    pub(crate) plan: &'a Plan,
    pub(crate) uffd: &'a Uffd,
    pub(crate) stats: MonitorStats,
    pub(crate) seen: &'a Seen,
    pub(crate) seconds: f64,
}

impl Report<'_> {
    pub(crate) fn print(&self) -> anyhow::Result<()> {
        let text = if self.map.json { self.json() } else { self.text()? };
        words::print(format!("{}\n", text.trim_end()).as_bytes())
    }

    /// One line; times in seconds and nanoseconds, sizes in bytes.
    fn json(&self) -> String {
        let Self { map, plan, uffd, stats, seen, seconds } = self;
        let quantile = |quantile| seen.touches.value_at_quantile(quantile);
        format!(
            "{{\"provider\":\"{}\",\"protocol\":\"{}\",\"answer\":\"{}\",\"bytes\":{},\"pages\":{},\"faults\":{},\
             \"faults_inline\":{},\"mismatches\":{},\"seconds\":{seconds:.6},\"p50_ns\":{},\"p99_ns\":{},\"max_ns\":{},\
             \"resident_peak_bytes\":{},\"resident_bytes\":{},\"threads\":{},\"monitors\":{},\"window\":{},\
             \"order\":\"{}\",\"seed\":{}}}",
            uffd.provider(),
            word(map.protocol),
            word(map.answer),
            plan.bytes,
            plan.pages,
            stats.faults + stats.faults_inline,
            stats.faults_inline,
            seen.mismatches,
            quantile(0.5),
            quantile(0.99),
            seen.touches.max(),
            memory::peak_bytes().unwrap_or(0),
            plan.resident.0,
            plan.threads,
            plan.monitors,
            plan.window,
            word(map.order),
            map.seed(),
        )
    }

    fn text(&self) -> Result<String, fmt::Error> {
        let Self { map, plan, uffd, stats, seen, seconds } = self;
        let mut text = String::new();
        let out = &mut text;
        writeln!(out, "{}: {} bytes in {} pages", map.file.display(), plan.bytes, plan.pages)?;
        writeln!(
            out,
            "provider    {}, {} protocol, answers {}",
            uffd.provider(),
            word(map.protocol),
            if map.answer == Answer::Inline { "inline" } else { "by monitor" }
        )?;
        for line in uffd.refused().iter().map(ToString::to_string).flat_map(lines) {
            writeln!(out, "            refused: {line}")?;
        }
        match seen.first_mismatch {
            None => writeln!(out, "compared    every byte is that of the file")?,
            Some(offset) => writeln!(
                out,
                "compared    {} BYTES DIFFER, the first at {offset}: if nobody wrote to the file meanwhile, this \
                 is a bug of userfault",
                seen.mismatches
            )?,
        }
        let inline = match map.answer {
            Answer::Monitor => String::new(),
            Answer::Inline => format!(", {} of them answered inline", stats.faults_inline),
        };
        let faults = stats.faults + stats.faults_inline;
        writeln!(out, "faults      {faults}, each for a window of {}{inline}", counted(plan.window, "page"))?;
        let per_second = plan.bytes as f64 / 1e6 / seconds.max(1e-9);
        let order = match map.order {
            Order::Sequential => "sequential".to_owned(),
            Order::Random => format!("random, seed {}", map.seed()),
        };
        writeln!(
            out,
            "time        {seconds:.3} s, {per_second:.0} MB/s; {order}, {}, {}",
            counted(plan.threads, "reader"),
            counted(plan.monitors, "monitor")
        )?;
        let peak = memory::peak_bytes().map_or_else(|| "unknown".to_owned(), |bytes| Size(bytes).to_string());
        writeln!(
            out,
            "memory      {peak} at most (VmHWM, the whole process); {} for pages and buffers",
            plan.resident
        )?;
        if !seen.touches.is_empty() {
            let quantile = |quantile| time(seen.touches.value_at_quantile(quantile));
            let (p50, p99, max) = (quantile(0.5), quantile(0.99), time(seen.touches.max()));
            writeln!(out, "first touch p50 {p50}, p99 {p99}, longest {max}; each doubling, logarithmic:")?;
            out.write_str(&draw(&seen.touches, width())?)?;
        }
        Ok(text)
    }
}

/// `1 page`, `2 pages`.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn lines(text: String) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}
