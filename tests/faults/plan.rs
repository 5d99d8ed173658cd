//! Which faults come, and in which order.

use shrinkd::simulate::Draws;

use super::points::{Mark, Point};

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// A connection to PostgreSQL is cut.
    Cut(Point),
    /// kill -9, and a restart at once.
    Kill,
    /// A page that was read is written only after others have changed what is on it.
    HeldPass,
    /// SIGSTOP for longer than the session, then SIGCONT. At a mark it is a worker with a batch in hand: before the first
    /// lock it finds the fence closed when it goes on, after the fence the others wait for it.
    Zombie(Option<Mark>),
    Postgres,
    Kafka,
    /// From now on so many workers.
    Scale(usize),
    AddPartitions,
}

/// At least one fault of each kind, in an order in which each can show what it does.
pub fn short() -> Vec<Fault> {
    use Fault::{AddPartitions, Cut, HeldPass, Kafka, Kill, Postgres, Scale, Zombie};
    vec![
        Cut(Point::BeforeFence),
        Cut(Point::AfterFence),
        Scale(3),
        Cut(Point::AmidWrites),
        Cut(Point::ClaimBeforeCommit),
        Cut(Point::RefitAmidWrites),
        Kill,
        Cut(Point::BeforeCommit),
        Cut(Point::AfterCommit),
        Zombie(Some(Mark::IngestLock)),
        Cut(Point::RefitAfterCommit),
        Postgres,
        Cut(Point::PublishAmidPage),
        AddPartitions,
        Postgres,
        Zombie(None),
        Cut(Point::AfterCommit),
        Scale(2),
        Cut(Point::ClaimAfterCommit),
        Kafka,
        Cut(Point::PublishAfterCommit),
        HeldPass,
        Scale(1),
    ]
}

/// So many faults of each kind as a seed shuffles them; workers come and go in the same order always.
pub fn long(seed: u64) -> Vec<Fault> {
    const ROUNDS: usize = 10;
    let mut faults: Vec<Fault> = Vec::new();
    for _ in 0..ROUNDS {
        faults.extend(Point::ALL.map(Fault::Cut));
        faults.extend([Fault::Kill; 4]);
        faults.push(Fault::HeldPass);
        faults.extend([Fault::Zombie(None), Fault::Zombie(Some(Mark::IngestLock)), Fault::Postgres]);
        faults.extend([Fault::Scale(0); 2]);
    }
    faults.extend([Fault::Zombie(Some(Mark::Changes)); 2]);
    faults.extend([Fault::Kafka; 6]);
    faults.extend([Fault::AddPartitions; 2]);
    let mut draws = Draws::new(seed, 2);
    for i in (1..faults.len()).rev() {
        faults.swap(i, (draws.uniform() * (i + 1) as f64) as usize);
    }
    let mut sizes = [3, 2, 1].into_iter().cycle();
    for fault in &mut faults {
        if let Fault::Scale(size) = fault {
            *size = sizes.next().unwrap_or(1);
        }
    }
    faults
}
