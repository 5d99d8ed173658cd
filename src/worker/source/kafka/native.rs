//! Functions of librdkafka that rdkafka does not wrap: the id of a topic, and the high watermarks of the last fetches.

use std::ffi::{CStr, CString};
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::client::NativeClient;

/// The id that a topic was given when it was created, in base64; empty if the broker, which may be any of the cluster, has
/// none.
///
/// # Errors
/// If the broker does not answer within `timeout`, or has no such topic.
pub(super) fn topic_id(client: &NativeClient, broker: i32, topic: &str, timeout: Duration) -> Result<String, String> {
    let name = CString::new(topic).map_err(|error| error.to_string())?;
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let mut names = [name.as_ptr()];
    // SAFETY: the client outlives this call. Every object created here is destroyed here once, after its last use: the
    // event after everything that is read from it, which it owns, and the queue after the event. The admin call copies
    // what it needs of the topics and options before it returns.
    unsafe {
        let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options = sys::rd_kafka_AdminOptions_new(client.ptr(), operation);
        sys::rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, ptr::null_mut(), 0);
        // Otherwise the request goes to the controller, and waits for one if there is none.
        sys::rd_kafka_AdminOptions_set_broker(options, broker, ptr::null_mut(), 0);
        let queue = sys::rd_kafka_queue_new(client.ptr());
        sys::rd_kafka_DescribeTopics(client.ptr(), topics, options, queue);
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_TopicCollection_destroy(topics);
        // The call times out by itself; one second more lets it report that.
        let event = sys::rd_kafka_queue_poll(queue, timeout_ms.saturating_add(1_000));
        let id = read_topic_id(event);
        if !event.is_null() {
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_queue_destroy(queue);
        id
    }
}

/// # Safety
/// The event is null or the result of `DescribeTopics`.
unsafe fn read_topic_id(event: *mut sys::rd_kafka_event_t) -> Result<String, String> {
    if event.is_null() {
        return Err("no answer in time".to_owned());
    }
    // SAFETY: everything that is read belongs to the event, which the caller keeps until this returns. `DescribeTopics`
    // returns one description for each topic of the request, and only those that it counts are read.
    unsafe {
        let error = sys::rd_kafka_event_error(event);
        if error == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE {
            return Ok(String::new());
        }
        if error != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(text(sys::rd_kafka_event_error_string(event)));
        }
        let mut count = 0;
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        let descriptions = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if count == 0 {
            return Err("the answer is empty".to_owned());
        }
        let description = *descriptions;
        let error = sys::rd_kafka_TopicDescription_error(description);
        if sys::rd_kafka_error_code(error) != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(text(sys::rd_kafka_error_string(error)));
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(description);
        let is_zero =
            sys::rd_kafka_Uuid_most_significant_bits(id) == 0 && sys::rd_kafka_Uuid_least_significant_bits(id) == 0;
        Ok(if is_zero { String::new() } else { text(sys::rd_kafka_Uuid_base64str(id)) })
    }
}

/// The high watermark that came with the last fetch of a partition, if there was one. Sends no request.
pub(super) fn high_watermark(client: &NativeClient, topic: &str, partition: i32) -> Option<i64> {
    let topic = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client outlives this call, and the topic's name and both numbers live until it returns.
    let error = unsafe {
        let (low, high) = (&raw mut low, &raw mut high);
        sys::rd_kafka_get_watermark_offsets(client.ptr(), topic.as_ptr(), partition, low, high)
    };
    (error == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
}

/// # Safety
/// A C string or null.
unsafe fn text(string: *const std::ffi::c_char) -> String {
    if string.is_null() {
        return String::new();
    }
    // SAFETY: not null, and the caller guarantees a C string.
    unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned()
}
