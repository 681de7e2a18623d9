//! The network: what is sent on one connection arrives in order or, from some point on, not at all;
//! connections know nothing of each other. And the faults that come and go.

use cordis_control::machine::{Cancelled, Command, Event, Weight};
use cordis_control::ranges::SlotSet;

use crate::dice::Dice;
use crate::server::{Letter, SLOTS, Wire};
use crate::world::{CONTROL, Happening, World};

/// A connection.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Conn {
    /// Of a move.
    Wire(Wire),
    /// Of a proxy, to a server, with its number.
    Link(usize, usize, u64),
}

impl World {
    /// Whether a question of control's, or its answer, is lost.
    pub(crate) fn is_unlucky(&mut self) -> bool {
        !self.is_calm && self.dice.percent(3)
    }

    pub(crate) fn delay(&mut self) -> i64 {
        if !self.is_calm && self.dice.percent(5) {
            self.dice.span(20, 200)
        } else {
            self.dice.span(1, 6)
        }
    }

    pub(crate) fn is_cut(&self, a: &str, b: &str) -> bool {
        let is_it = |(x, y, until): &(String, String, i64)| {
            *until > self.now && (x == a && y == b || x == b && y == a)
        };
        self.cuts.iter().any(is_it)
    }

    pub(crate) fn until_it_goes_on(&self, who: &str) -> Option<i64> {
        self.stopped.get(who).map(|until| until - self.now).filter(|left| *left > 0)
    }

    /// Puts something on a connection: there, or `is_back`.
    pub(crate) fn transmit(&mut self, conn: Conn, is_back: bool, what: Happening) {
        if self.broken.contains(&conn) {
            return;
        }
        if !self.is_calm && self.dice.below(200) == 0 {
            self.note(|| format!("{conn:?} breaks"));
            self.broken.insert(conn);
            return;
        }
        let mut delay = self.delay();
        // What is on its way to a server that cannot refuse arrives soon or never.
        let may_be_late = matches!(conn, Conn::Wire(_)) || !self.has_codis;
        if !self.is_calm && may_be_late && self.dice.below(150) == 0 {
            delay += self.dice.span(0, 1_500);
        }
        let last = self.arrivals.entry((conn, is_back)).or_default();
        *last = (*last).max(self.now + delay);
        let left = *last - self.now;
        self.at(left, what);
    }

    /// Whether something that was sent on a connection arrives.
    pub(crate) fn arrives(&mut self, conn: &Conn, from: &str, to: &str) -> bool {
        if self.is_cut(from, to) {
            self.broken.insert(conn.clone());
            self.severed.insert(conn.clone());
        }
        !self.severed.contains(conn)
    }

    /// A server ends: nothing arrives any more on its connections, which the next process does not have.
    pub(crate) fn sever_all(&mut self, server: usize) {
        let addr = &self.servers[server].addr;
        let is_its = |conn: &Conn| match conn {
            Conn::Wire(wire) => wire.source == *addr || wire.target == *addr,
            Conn::Link(_, to, _) => *to == server,
        };
        let ended = self.arrivals.keys().map(|(conn, _)| conn).filter(|conn| is_its(conn));
        let ended: Vec<Conn> = ended.cloned().collect();
        self.severed.extend(ended.iter().cloned());
        self.broken.extend(ended);
    }

    pub(crate) fn post(&mut self, wire: Wire, letter: Letter) {
        let is_back = !letter.is_question();
        self.transmit(Conn::Wire(wire.clone()), is_back, Happening::Letter { wire, letter });
    }

    // Trouble.

    pub(crate) fn fault(&mut self) {
        let delay = self.dice.span(50, 600);
        self.at(delay, Happening::Fault);
        let servers: Vec<String> = self.servers.iter().map(|s| s.addr.to_string()).collect();
        let proxies = self.proxies.iter().map(|proxy| proxy.addr.clone());
        let all: Vec<String> =
            servers.iter().cloned().chain(proxies).chain([CONTROL.to_owned()]).collect();
        match self.dice.below(10) {
            0..=2 => {
                let (a, b) = (self.dice.pick(&all).clone(), self.dice.pick(&all).clone());
                let until = self.now + self.dice.span(50, 2_500);
                self.note(|| format!("{a} and {b} are cut until {until}"));
                self.cuts.retain(|(_, _, until)| *until > self.now);
                self.cuts.push((a, b, until));
            }
            3 | 4 => {
                let who = self.dice.pick(&all).clone();
                // What is on its way to a server that cannot refuse arrives soon or never.
                let is_patient = !self.has_codis || who == CONTROL;
                let until = self.now + self.dice.span(20, if is_patient { 2_500 } else { 600 });
                self.note(|| format!("{who} is stopped until {until}"));
                self.stopped.retain(|_, until| *until > self.now);
                // What waits for it to go on must not be overtaken.
                let last = self.stopped.entry(who).or_default();
                *last = until.max(*last);
            }
            5 | 6 => {
                let at = self.dice.below(self.servers.len());
                if self.servers[at].is_up {
                    self.crash_server(at);
                }
            }
            7 => {
                let at = self.dice.below(self.proxies.len());
                if self.proxies[at].is_up {
                    self.crash_proxy(at);
                }
            }
            8 => *self.disk.tear.borrow_mut() = Some(self.dice.below(500)),
            _ if self.control.is_some() => self.crash_control(),
            _ => {}
        }
    }

    pub(crate) fn wish(&mut self) {
        let delay = self.dice.span(20, 500);
        self.at(delay, Happening::Wish);
        let groups = self.servers.len();
        let slots = |dice: &mut Dice| -> SlotSet {
            (0..1 + dice.below(4)).map(|_| dice.below(usize::from(SLOTS)) as u16).collect()
        };
        let command = match self.dice.below(20) {
            0..=12 => Command::SlotsMove {
                slots: slots(&mut self.dice),
                to: 1 + self.dice.below(groups) as u16,
            },
            13 | 14 => Command::Cancel(Cancelled::All),
            15 => Command::Cancel(Cancelled::Slots(slots(&mut self.dice))),
            16 => Command::Pause,
            17 | 18 => Command::Resume,
            _ => Command::Rebalance { by: Weight::Slots, is_preview: true },
        };
        let id = self.next_command();
        self.note(|| format!("command {id}: {command:?}"));
        self.control_step(Event::Command { id, command });
    }
}
