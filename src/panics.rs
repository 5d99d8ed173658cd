//! Panics in the arithmetic, which are bugs, as errors: a bug that the data of one population meets does not stop the others.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What pure arithmetic gives, or the message of the panic that it ended with. It must own what it changes, because nobody sees
/// that after a panic.
pub fn caught<T>(arithmetic: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(arithmetic)).map_err(|payload| format!("a computation panicked: {}", text(&*payload)))
}

fn text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_message_and_anything_else_is_returned() {
        assert_eq!(caught(|| 7), Ok(7));
        let number = 3;
        assert_eq!(
            caught(|| -> u8 { panic!("planted {number}") }),
            Err("a computation panicked: planted 3".to_owned())
        );
        assert_eq!(caught(|| -> u8 { panic!("planted") }), Err("a computation panicked: planted".to_owned()));
        let other = caught(|| -> u8 { std::panic::panic_any(7_u8) });
        assert_eq!(other, Err("a computation panicked: without a message".to_owned()));
    }
}
