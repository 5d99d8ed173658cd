//! Rights on Apache Kafka, and the listener of `scripts/services` that asks for a password.

use std::ffi::CString;
use std::ptr;

use rdkafka::bindings as sys;

use super::skipped::skipped;
use super::topic::Topic;

/// Who may log in there.
pub const USER: &str = "app";
pub const PASSWORD: &str = "app-password";

/// The listener that asks for a password; `None`, with a message, without Apache Kafka of `scripts/services`.
pub fn listener_with_password() -> Option<String> {
    let listener = std::env::var("SHRINKD_TEST_KAFKA_SASL").ok();
    if listener.is_none() {
        skipped("SHRINKD_TEST_KAFKA_SASL names no Apache Kafka with passwords");
    }
    listener
}

/// The environment of a client that logs in.
pub fn login(password: &str) -> Vec<(&'static str, String)> {
    vec![
        ("SHRINKD__SOURCE__KAFKA__PROPERTIES__SECURITY_PROTOCOL", "sasl_plaintext".to_owned()),
        ("SHRINKD__SOURCE__KAFKA__PROPERTIES__SASL_MECHANISM", "PLAIN".to_owned()),
        ("SHRINKD__SOURCE__KAFKA__PROPERTIES__SASL_USERNAME", USER.to_owned()),
        ("SHRINKD__SOURCE__KAFKA__PROPERTIES__SASL_PASSWORD", password.to_owned()),
    ]
}

/// What rights are granted on.
pub enum Resource<'a> {
    Topic(&'a str),
    Group(&'a str),
}

/// What is granted.
pub enum Operation {
    Describe,
    Read,
}

impl Topic {
    /// Grants an operation to one user, and with it nothing to all others any more.
    pub fn grant(&self, user: &str, operation: &Operation, resource: &Resource<'_>) {
        let operation = match operation {
            Operation::Describe => sys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_DESCRIBE,
            Operation::Read => sys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_READ,
        };
        self.add_rule(resource, user, operation, ALLOW);
    }

    /// Denies everybody to read the topic, and allows everything else.
    pub fn deny_read(&self) {
        let topic = Resource::Topic(&self.name);
        self.add_rule(&topic, "*", sys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_ALL, ALLOW);
        let deny = sys::rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_DENY;
        self.add_rule(&topic, "*", sys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_READ, deny);
    }

    fn add_rule(
        &self,
        resource: &Resource<'_>,
        user: &str,
        operation: sys::rd_kafka_AclOperation_t,
        permission: sys::rd_kafka_AclPermissionType_t,
    ) {
        let (kind, name) = match resource {
            Resource::Topic(name) => (sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC, name),
            Resource::Group(name) => (sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_GROUP, name),
        };
        let (name, principal, host) = (text(name), text(&format!("User:{user}")), text("*"));
        let admin = self.admin();
        let client = admin.inner().native_ptr();
        // SAFETY: the client and the strings live until the end. Each object is destroyed once, after its last use, the event
        // after everything that is read from it.
        unsafe {
            let acl = sys::rd_kafka_AclBinding_new(
                kind,
                name.as_ptr(),
                LITERAL,
                principal.as_ptr(),
                host.as_ptr(),
                operation,
                permission,
                ptr::null_mut(),
                0,
            );
            assert!(!acl.is_null(), "a right");
            let queue = sys::rd_kafka_queue_new(client);
            sys::rd_kafka_CreateAcls(client, [acl].as_mut_ptr(), 1, ptr::null(), queue);
            let event = answer(queue);
            let mut count = 0;
            let result = sys::rd_kafka_event_CreateAcls_result(event);
            let results = sys::rd_kafka_CreateAcls_result_acls(result, &raw mut count);
            assert_eq!(count, 1);
            assert_eq!(sys::rd_kafka_error_code(sys::rd_kafka_acl_result_error(*results)), NO_ERROR, "it is granted");
            sys::rd_kafka_event_destroy(event);
            sys::rd_kafka_queue_destroy(queue);
            sys::rd_kafka_AclBinding_destroy(acl);
        }
    }

    /// Removes all rules of the topic, so that everybody may do everything.
    pub fn allow_all(&self) {
        let name = text(&self.name);
        let admin = self.admin();
        let client = admin.inner().native_ptr();
        // SAFETY: as above.
        unsafe {
            let filter = sys::rd_kafka_AclBindingFilter_new(
                sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC,
                name.as_ptr(),
                LITERAL,
                ptr::null(),
                ptr::null(),
                sys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_ANY,
                sys::rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_ANY,
                ptr::null_mut(),
                0,
            );
            assert!(!filter.is_null(), "a filter");
            let queue = sys::rd_kafka_queue_new(client);
            sys::rd_kafka_DeleteAcls(client, [filter].as_mut_ptr(), 1, ptr::null(), queue);
            sys::rd_kafka_event_destroy(answer(queue));
            sys::rd_kafka_queue_destroy(queue);
            sys::rd_kafka_AclBinding_destroy(filter);
        }
    }
}

const ALLOW: sys::rd_kafka_AclPermissionType_t = sys::rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW;
const LITERAL: sys::rd_kafka_ResourcePatternType_t =
    sys::rd_kafka_ResourcePatternType_t::RD_KAFKA_RESOURCE_PATTERN_LITERAL;
const NO_ERROR: sys::rd_kafka_resp_err_t = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;

fn text(text: &str) -> CString {
    CString::new(text).expect("no zero byte")
}

/// The broker's answer to a request, which the caller destroys.
///
/// # Safety
/// A queue that exists.
unsafe fn answer(queue: *mut sys::rd_kafka_queue_t) -> *mut sys::rd_kafka_event_t {
    // SAFETY: the caller guarantees the queue, and the event is read before it is destroyed.
    unsafe {
        let event = sys::rd_kafka_queue_poll(queue, 30_000);
        assert!(!event.is_null(), "the broker answers");
        assert_eq!(sys::rd_kafka_event_error(event), NO_ERROR, "the broker accepts the request");
        event
    }
}
