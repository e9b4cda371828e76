//! W3C trace context: which trace a request, a record or a commit belongs to.
//!
//! It travels as `traceparent` and `tracestate`, in HTTP and as headers of records, and ends in the commits of the tables.
//! What comes from outside is read by the grammar and by nothing looser: what does not fit is no context.

use std::fmt;

/// The most traces that a commit names.
pub const MAX_TRACES: usize = 16;

/// The longest `tracestate` that is passed on, in bytes.
pub const MAX_STATE_BYTES: usize = 512;

/// The most members that a `tracestate` may have, by the standard.
const MAX_STATE_MEMBERS: usize = 32;

/// Bytes of a `traceparent` of version 00.
const PARENT_BYTES: usize = 55;

/// The flag of a trace that is recorded.
const SAMPLED: u8 = 1;

/// One place of a trace: what comes after it names it as its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    is_sampled: bool,
}

impl TraceContext {
    /// None when one of the ids is 0, which is no id.
    pub fn new(trace_id: u128, span_id: u64, is_sampled: bool) -> Option<Self> {
        (trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id, is_sampled })
    }

    /// Reads a `traceparent`. Of versions that are not known yet, the part that they share with version 00 is read, as
    /// the standard asks.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let version = hex_number(bytes.get(0..2)?)?;
        let is_whole = match version {
            0 => bytes.len() == PARENT_BYTES,
            0xff => false,
            _ => bytes.len() == PARENT_BYTES || bytes.get(PARENT_BYTES) == Some(&b'-'),
        };
        if !is_whole || [2, 35, 52].iter().any(|place| bytes.get(*place) != Some(&b'-')) {
            return None;
        }
        let trace_id = hex_number(bytes.get(3..35)?)?;
        let span_id = u64::try_from(hex_number(bytes.get(36..52)?)?).ok()?;
        let flags = u8::try_from(hex_number(bytes.get(53..55)?)?).ok()?;
        Self::new(trace_id, span_id, flags & SAMPLED != 0)
    }

    /// Another place in the same trace.
    #[must_use]
    pub fn at(self, span_id: u64) -> Self {
        Self { span_id: span_id.max(1), ..self }
    }

    pub fn trace_id(&self) -> u128 {
        self.trace_id
    }

    /// The id as it is written: 32 hexadecimal digits.
    pub fn trace_id_text(&self) -> String {
        format!("{:032x}", self.trace_id)
    }

    pub fn span_id(&self) -> u64 {
        self.span_id
    }

    /// Whether the trace is recorded.
    pub fn is_sampled(&self) -> bool {
        self.is_sampled
    }
}

impl fmt::Display for TraceContext {
    /// As `traceparent`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.is_sampled))
    }
}

/// Lower case only: so the standard writes ids.
fn hex_number(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0u128, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some((number << 4) | u128::from(value))
    })
}

/// One `tracestate` of the header's values, within [`MAX_STATE_BYTES`]: members that do not fit any more go from the end.
/// None when it is empty or breaks the grammar.
pub fn trace_state<'a>(values: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let members = values.into_iter().flat_map(|value| value.split(',')).map(|member| member.trim_matches([' ', '\t']));
    let (mut state, mut count, mut is_full) = (String::new(), 0, false);
    for member in members.filter(|member| !member.is_empty()) {
        count += 1;
        if count > MAX_STATE_MEMBERS || !is_state_member(member) {
            return None;
        }
        is_full |= state.len() + member.len() + usize::from(!state.is_empty()) > MAX_STATE_BYTES;
        if is_full {
            continue;
        }
        if !state.is_empty() {
            state.push(',');
        }
        state.push_str(member);
    }
    (!state.is_empty()).then_some(state)
}

/// `key=value`, the key of lower-case letters, digits and a few signs, the value printable.
fn is_state_member(member: &str) -> bool {
    let Some((key, value)) = member.split_once('=') else { return false };
    let is_key = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(&byte);
    let is_value = |byte: u8| (0x20..=0x7e).contains(&byte) && byte != b'=';
    let begins = key.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    begins
        && key.len() <= 256
        && key.bytes().all(is_key)
        && (1..=256).contains(&value.len())
        && value.bytes().all(is_value)
}

/// The traces of the records of one step: the first few of them, and how many records had one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traces {
    kept: Vec<TraceContext>,
    records: u64,
}

impl Traces {
    /// Takes the trace of a record. Of one trace the first place is kept.
    pub fn add(&mut self, context: TraceContext) {
        self.records += 1;
        self.keep(context);
    }

    /// Takes the traces of another step.
    pub fn merge(&mut self, other: &Self) {
        self.records += other.records;
        other.kept.iter().for_each(|context| self.keep(*context));
    }

    fn keep(&mut self, context: TraceContext) {
        let is_known = || self.kept.iter().any(|kept| kept.trace_id == context.trace_id);
        if self.kept.len() < MAX_TRACES && !is_known() {
            self.kept.push(context);
        }
    }

    /// At most [`MAX_TRACES`], each of another trace.
    pub fn contexts(&self) -> &[TraceContext] {
        &self.kept
    }

    /// Records that had a trace.
    pub fn num_records(&self) -> u64 {
        self.records
    }

    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_comes_back_as_it_was() {
        let context = TraceContext::parse(GOOD).unwrap();
        assert_eq!(context.to_string(), GOOD);
        assert_eq!(context.trace_id_text(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(context.is_sampled() && !TraceContext::parse(&GOOD.replace("-01", "-00")).unwrap().is_sampled());
        // Flags that are not known are not passed on.
        assert_eq!(TraceContext::parse(&GOOD.replace("-01", "-ff")).unwrap().to_string(), GOOD);
        assert_eq!(context.at(0xab).to_string(), "00-4bf92f3577b34da6a3ce929d0e0e4736-00000000000000ab-01");
    }

    #[test]
    fn what_does_not_fit_the_grammar_is_no_context() {
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0é",
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad:?}");
        }
        assert!(TraceContext::parse("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more").is_some());
    }

    #[test]
    fn a_trace_state_is_joined_bounded_and_dropped_when_it_breaks_the_grammar() {
        assert_eq!(trace_state(["a=1, b@c=2", "", "d=x y"]).as_deref(), Some("a=1,b@c=2,d=x y"));
        for bad in ["a", "A=1", "=1", "a=", "a=1\u{7f}", "a=é", "a==1"] {
            assert_eq!(trace_state([bad]), None, "{bad:?}");
        }
        assert_eq!(trace_state([]), None);
        let long = "v".repeat(250);
        let members: Vec<String> = (0..5).map(|number| format!("k{number}={long}")).collect();
        let state = trace_state(members.iter().map(String::as_str)).unwrap();
        assert_eq!(state, format!("{},{}", members[0], members[1]));
        assert!(state.len() <= MAX_STATE_BYTES);
        assert_eq!(trace_state(["a=1"; MAX_STATE_MEMBERS + 1]), None);
    }

    #[test]
    fn a_step_keeps_a_few_traces_and_counts_all_records() {
        let context = |number: u128| TraceContext::new(number, 7, true).unwrap();
        let mut traces = Traces::default();
        (1..=40).for_each(|number| traces.add(context(number)));
        traces.add(context(1));
        assert_eq!((traces.contexts().len(), traces.num_records()), (MAX_TRACES, 41));
        let mut merged = Traces::default();
        merged.add(context(1));
        merged.merge(&traces);
        assert_eq!((merged.contexts().len(), merged.num_records()), (MAX_TRACES, 42));
    }
}
