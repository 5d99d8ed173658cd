//! A port that leads to a server once it is opened: before, nobody listens there.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

/// A port of this machine on which nobody listens.
pub fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}

/// Opens it: connections lead to the server, until the test ends.
pub fn open(port: u16, server: &str) {
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("nobody has taken it");
    let server = server.to_owned();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(&server)) else { continue };
            copy(&client, &server);
            copy(&server, &client);
        }
    });
}

fn copy(from: &TcpStream, to: &TcpStream) {
    let (mut from, mut to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
}
