//! Functions of librdkafka that rdkafka does not wrap: descriptions of topics and groups.

use std::ffi::{CStr, CString};
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::client::NativeClient;

/// A topic, as a broker describes it.
pub(super) struct TopicDescription {
    /// The id that the topic was given when it was created, in base64; empty if the broker has none.
    pub id: String,
    /// Whether this client may read it; `None` if that was not asked for, or the broker does not tell.
    pub may_read: Option<bool>,
}

/// Describes a topic. The broker may be any of the cluster.
///
/// # Errors
/// If the broker does not answer within `timeout`, or has no such topic.
pub(super) fn describe_topic(
    client: &NativeClient,
    broker: i32,
    topic: &str,
    asks_for_rights: bool,
    timeout: Duration,
) -> Result<TopicDescription, String> {
    let name = CString::new(topic).map_err(|error| error.to_string())?;
    let mut names = [name.as_ptr()];
    // SAFETY: the client outlives this call. Every object created here is destroyed here once, after its last use: the
    // event after everything that is read from it, which it owns, and the queue after the event. The admin call copies
    // what it needs of the topics and options before it returns.
    unsafe {
        let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let options = options(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, timeout);
        // Otherwise the request goes to the controller, and waits for one if there is none.
        sys::rd_kafka_AdminOptions_set_broker(options, broker, ptr::null_mut(), 0);
        ask_for_rights(options, asks_for_rights);
        let queue = sys::rd_kafka_queue_new(client.ptr());
        sys::rd_kafka_DescribeTopics(client.ptr(), topics, options, queue);
        sys::rd_kafka_TopicCollection_destroy(topics);
        answer(options, queue, timeout, |event| read_topic(event))
    }
}

/// Whether this client may join a group; `None` if the broker does not tell.
///
/// # Errors
/// If the group's coordinator does not answer within `timeout`, or refuses.
pub(super) fn may_join(client: &NativeClient, group: &str, timeout: Duration) -> Result<Option<bool>, String> {
    let name = CString::new(group).map_err(|error| error.to_string())?;
    let mut names = [name.as_ptr()];
    // SAFETY: as in `describe_topic`.
    unsafe {
        let options = options(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS, timeout);
        ask_for_rights(options, true);
        let queue = sys::rd_kafka_queue_new(client.ptr());
        sys::rd_kafka_DescribeConsumerGroups(client.ptr(), names.as_mut_ptr(), names.len(), options, queue);
        answer(options, queue, timeout, |event| read_group(event))
    }
}

/// # Safety
/// The client outlives the options, which the caller destroys.
unsafe fn options(
    client: &NativeClient,
    operation: sys::rd_kafka_admin_op_t,
    timeout: Duration,
) -> *mut sys::rd_kafka_AdminOptions_t {
    // SAFETY: the caller's.
    unsafe {
        let options = sys::rd_kafka_AdminOptions_new(client.ptr(), operation);
        sys::rd_kafka_AdminOptions_set_request_timeout(options, milliseconds(timeout), ptr::null_mut(), 0);
        options
    }
}

/// # Safety
/// The options are valid.
unsafe fn ask_for_rights(options: *mut sys::rd_kafka_AdminOptions_t, asks: bool) {
    // SAFETY: the caller's. The error, if there is one, is the caller's to destroy, which takes null too.
    unsafe {
        let error = sys::rd_kafka_AdminOptions_set_include_authorized_operations(options, i32::from(asks));
        sys::rd_kafka_error_destroy(error);
    }
}

/// Waits for the answer to a request that was sent, reads it, and destroys the options and the queue of the request.
///
/// # Safety
/// The options and the queue are valid, and not used afterwards. `read` is given the event or null, and keeps nothing of it.
unsafe fn answer<T>(
    options: *mut sys::rd_kafka_AdminOptions_t,
    queue: *mut sys::rd_kafka_queue_t,
    timeout: Duration,
    read: impl FnOnce(*mut sys::rd_kafka_event_t) -> T,
) -> T {
    // SAFETY: the caller's.
    unsafe {
        sys::rd_kafka_AdminOptions_destroy(options);
        // The call times out by itself; one second more lets it report that.
        let event = sys::rd_kafka_queue_poll(queue, milliseconds(timeout).saturating_add(1_000));
        let value = read(event);
        if !event.is_null() {
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_queue_destroy(queue);
        value
    }
}

fn milliseconds(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX)
}

/// # Safety
/// The event is null or the result of `DescribeTopics`.
unsafe fn read_topic(event: *mut sys::rd_kafka_event_t) -> Result<TopicDescription, String> {
    if event.is_null() {
        return Err("no answer in time".to_owned());
    }
    // SAFETY: everything that is read belongs to the event, which the caller keeps until this returns. `DescribeTopics`
    // returns one description for each topic of the request, and only those that it counts are read.
    unsafe {
        let error = sys::rd_kafka_event_error(event);
        if error == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE {
            return Ok(TopicDescription { id: String::new(), may_read: None });
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
        let mut operations = 0;
        let first = sys::rd_kafka_TopicDescription_authorized_operations(description, &raw mut operations);
        Ok(TopicDescription {
            id: if is_zero { String::new() } else { text(sys::rd_kafka_Uuid_base64str(id)) },
            may_read: may_read(first, operations),
        })
    }
}

/// # Safety
/// The event is null or the result of `DescribeConsumerGroups`.
unsafe fn read_group(event: *mut sys::rd_kafka_event_t) -> Result<Option<bool>, String> {
    if event.is_null() {
        return Err("no answer in time".to_owned());
    }
    // SAFETY: as in `read_topic`.
    unsafe {
        match sys::rd_kafka_event_error(event) {
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => {}
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE => return Ok(None),
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED => return Ok(Some(false)),
            _ => return Err(text(sys::rd_kafka_event_error_string(event))),
        }
        let mut count = 0;
        let result = sys::rd_kafka_event_DescribeConsumerGroups_result(event);
        let descriptions = sys::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut count);
        if count == 0 {
            return Err("the answer is empty".to_owned());
        }
        let description = *descriptions;
        match sys::rd_kafka_error_code(sys::rd_kafka_ConsumerGroupDescription_error(description)) {
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => {}
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE => return Ok(None),
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED => return Ok(Some(false)),
            // The sentence with it is often empty.
            code => return Err(text(sys::rd_kafka_err2str(code))),
        }
        let mut operations = 0;
        let first = sys::rd_kafka_ConsumerGroupDescription_authorized_operations(description, &raw mut operations);
        Ok(may_read(first, operations))
    }
}

/// # Safety
/// The first of so many operations, or null where the broker names none.
unsafe fn may_read(first: *const sys::rd_kafka_AclOperation_t, count: usize) -> Option<bool> {
    if first.is_null() {
        return None;
    }
    // SAFETY: the caller's. As numbers: a later librdkafka may know operations that the bindings do not.
    let operations = unsafe { std::slice::from_raw_parts(first.cast::<u32>(), count) };
    let read = sys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_READ as u32;
    Some(operations.contains(&read))
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
