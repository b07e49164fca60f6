//! The parameters of links, and their change while frames are under way.

use tapestry_core::link::{InvalidParameters, LinkParameters, ParameterChange};
use tapestry_core::{DataRate, SimTime};
use thiserror::Error;

use super::link::{HEADER_BYTES, VLAN_TAG_BYTES};
use super::{Channel, Link, Network};
use crate::impair::{Named, ReceiveErrors};
use crate::queue::{Queue, QueueConfig};
use crate::{Direction, LinkId};

/// Why a link's parameters were not changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SetLinkError {
    /// No model can obey the parameters.
    #[error("link `{link}`: {reason}")]
    Invalid {
        /// The link's name.
        link: String,
        /// What is wrong.
        reason: InvalidParameters,
    },
    /// A medium shared by several stations has no such parameter.
    #[error(
        "link `{link}` is a shared medium, which has no `{key}`; use a point-to-point link for it"
    )]
    SharedMedium {
        /// The link's name.
        link: String,
        /// The parameter as topology files name it.
        key: &'static str,
    },
    /// A medium was to carry longer frames than it was made for.
    #[error(
        "link `{link}`: an MTU of {mtu} is more than the {most} with which it started, for which \
         buffers were made; start the lab with the larger `mtu`"
    )]
    Mtu {
        /// The link's name.
        link: String,
        /// The MTU that was asked for, bytes.
        mtu: u32,
        /// The largest that it can have, bytes.
        most: u32,
    },
    /// A medium shared by several stations has no directions.
    #[error("link `{link}` is a shared medium; set the parameters of both directions at once")]
    NoDirections {
        /// The link's name.
        link: String,
    },
    /// There is no such link or station.
    #[error("there is no station {station} of link {link}")]
    NoSuchStation {
        /// The link's number.
        link: u32,
        /// The station's number.
        station: u32,
    },
}

/// New values for some properties of a link; what is not named stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkChange {
    /// What the first station sends, and the second. Equal on a shared medium.
    pub directions: [DirectionChange; 2],
    /// Largest payload of a frame, bytes; at most that with which the link was made.
    pub mtu: Option<u32>,
}

/// New values for some properties of one direction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DirectionChange {
    /// What is done to frames.
    pub parameters: ParameterChange,
    /// The queue of the sending station.
    pub queue: Option<QueueConfig>,
}

impl Network {
    /// Changes what a link does to frames from `now` on. The change counts for frames that are not
    /// on the wire yet; those under way arrive as they would have, and later ones do not overtake
    /// them unless the new parameters allow it. Models whose parameters stay the same keep their
    /// state, and random streams go on where they are.
    ///
    /// # Errors
    ///
    /// Nothing is changed if there is an error.
    pub fn set_link(
        &mut self,
        now: SimTime,
        link: LinkId,
        direction: Direction,
        parameters: &LinkParameters,
    ) -> Result<(), SetLinkError> {
        let station = match direction {
            Direction::Both => 0,
            Direction::From(station) => station,
        };
        let stations = self.links.get(link.0 as usize).map_or(0, |link| link.counters.len());
        if station as usize >= stations {
            return Err(SetLinkError::NoSuchStation { link: link.0, station });
        }
        let this = &self.links[link.0 as usize];
        this.check(direction, this.mtu, parameters)?;
        self.catch_up(now);
        self.apply(link, direction, parameters);
        Ok(())
    }

    /// Changes some of a link's properties from `now` on and leaves the others; see
    /// [`set_link`](Self::set_link) for the parameters. Frames that wait in a queue that is replaced
    /// move to the new one in their order, as far as it takes them. An MTU counts for frames offered
    /// from now on.
    ///
    /// # Errors
    ///
    /// Nothing is changed if there is an error.
    pub fn change_link(
        &mut self,
        now: SimTime,
        link: LinkId,
        change: &LinkChange,
    ) -> Result<(), SetLinkError> {
        let Some(this) = self.links.get(link.0 as usize) else {
            return Err(SetLinkError::NoSuchStation { link: link.0, station: 0 });
        };
        let [forward, backward] = &change.directions;
        let directions = if this.is_point_to_point() {
            vec![(Direction::From(0), forward), (Direction::From(1), backward)]
        } else if forward == backward {
            vec![(Direction::Both, forward)]
        } else {
            return Err(SetLinkError::NoDirections { link: this.name.clone() });
        };
        let mtu = change.mtu.unwrap_or(this.mtu);
        if mtu > this.largest_mtu {
            let (link, most) = (this.name.clone(), this.largest_mtu);
            return Err(SetLinkError::Mtu { link, mtu, most });
        }
        let new = |&(direction, change): &(Direction, &DirectionChange)| {
            let station = if let Direction::From(station) = direction { station } else { 0 };
            let parameters = change.parameters.applied_to(&self.link_parameters(link, station));
            this.check(direction, mtu, &parameters).map(|()| parameters)
        };
        let new = directions.iter().map(new).collect::<Result<Vec<_>, _>>()?;
        self.catch_up(now);
        self.links[link.0 as usize].mtu = mtu;
        for ((direction, change), parameters) in directions.into_iter().zip(new) {
            if !change.parameters.set.is_empty() {
                self.apply(link, direction, &parameters);
            }
            if let Some(queue) = &change.queue {
                self.set_queue(link, direction, queue);
            }
        }
        Ok(())
    }

    fn set_queue(&mut self, link: LinkId, direction: Direction, config: &QueueConfig) {
        let (now, streams) = (self.now, self.streams);
        let this = &mut self.links[link.0 as usize];
        this.queues_made += 1;
        let (name, mtu, made) = (this.name.clone(), this.mtu, this.queues_made);
        let (parts, mut cx) = self.context(now, link);
        let stations = match direction {
            Direction::From(station) => station..station + 1,
            Direction::Both => 0..cx.counters.len() as u32,
        };
        for station in stations {
            // Another stream than that of the queue before.
            let (path, purpose) =
                (format!("link/{name}/station/{station}"), format!("queue/{made}"));
            let queue = Queue::new(config, mtu, || streams.stream(&path, &purpose));
            match parts.channel {
                Channel::PointToPoint(channel) => {
                    channel.set_queue(&mut cx, station as usize, queue);
                }
                Channel::Csma(channel) => channel.set_queue(&mut cx, station as usize, queue),
            }
        }
    }

    /// What a direction does to frames; on a shared medium, what the link does.
    pub fn link_parameters(&self, link: LinkId, station: u32) -> LinkParameters {
        let link = &self.links[link.0 as usize];
        if let Some(parameters) = &link.parameters {
            return parameters[usize::from(link.is_point_to_point() && station > 0)].clone();
        }
        match &link.channel {
            Channel::PointToPoint(channel) => channel.parameters(station.min(1) as usize),
            Channel::Csma(channel) => channel.parameters(),
        }
    }

    /// Changes a link's one-way delay at `now`, for frames that are not on the wire yet.
    pub fn set_delay(&mut self, now: SimTime, link: LinkId, delay: SimTime) {
        self.change(now, link, |parameters| parameters.delay = delay);
    }

    /// Changes a link's rate at `now`, for frames whose transmission has not begun; `None` is
    /// unlimited.
    pub fn set_rate(&mut self, now: SimTime, link: LinkId, rate: Option<DataRate>) {
        self.change(now, link, |parameters| parameters.rate = rate);
    }

    fn change(&mut self, now: SimTime, link: LinkId, change: impl Fn(&mut LinkParameters)) {
        self.catch_up(now);
        for station in 0..2 {
            let mut parameters = self.link_parameters(link, station);
            change(&mut parameters);
            let direction = match &self.links[link.0 as usize].channel {
                Channel::PointToPoint(_) => Direction::From(station),
                Channel::Csma(_) => Direction::Both,
            };
            self.apply(link, direction, &parameters);
        }
    }

    fn apply(&mut self, link: LinkId, direction: Direction, parameters: &LinkParameters) {
        let (now, streams) = (self.now, self.streams);
        self.links[link.0 as usize].set(now, streams, direction, parameters);
    }
}

impl Link {
    fn is_point_to_point(&self) -> bool {
        matches!(self.channel, Channel::PointToPoint(_))
    }

    /// Whether this link can obey the parameters.
    pub(crate) fn check(
        &self,
        direction: Direction,
        mtu: u32,
        parameters: &LinkParameters,
    ) -> Result<(), SetLinkError> {
        let link = || self.name.clone();
        if !self.is_point_to_point() {
            if let Some(key) = parameters.refused_on_shared_medium() {
                return Err(SetLinkError::SharedMedium { link: link(), key });
            }
            if direction != Direction::Both {
                return Err(SetLinkError::NoDirections { link: link() });
            }
        }
        parameters.validate(mtu).map_err(|reason| SetLinkError::Invalid { link: link(), reason })
    }

    /// Obeys parameters that have been checked.
    pub(crate) fn set(
        &mut self,
        now: SimTime,
        streams: tapestry_core::Streams,
        direction: Direction,
        parameters: &LinkParameters,
    ) {
        let link = self.name.as_str();
        let frame_bytes = self.mtu as usize + HEADER_BYTES + VLAN_TAG_BYTES;
        let named = |station| Named { streams, link, station };
        let plain = match &self.channel {
            Channel::PointToPoint(channel) => [0, 1].map(|station| channel.parameters(station)),
            Channel::Csma(channel) => [channel.parameters(), channel.parameters()],
        };
        match &mut self.channel {
            Channel::PointToPoint(channel) => {
                for station in 0..2 {
                    if matches!(direction, Direction::From(only) if only != station) {
                        continue;
                    }
                    channel.set(now, &named(station), frame_bytes, parameters);
                }
            }
            Channel::Csma(channel) => {
                channel.set(parameters);
                match &mut self.errors {
                    Some(errors) => errors.iter_mut().for_each(|errors| errors.set(parameters)),
                    None if parameters.is_plain() => {}
                    none => {
                        let stations = 0..self.counters.len() as u32;
                        let errors = stations.map(|station| {
                            ReceiveErrors::new(&named(station), frame_bytes, parameters)
                        });
                        *none = Some(errors.collect());
                    }
                }
            }
        }
        let present = self.parameters.get_or_insert_with(|| Box::new(plain));
        match direction {
            Direction::From(station) => present[station.min(1) as usize] = parameters.clone(),
            Direction::Both => **present = [parameters.clone(), parameters.clone()],
        }
        if present.iter().all(LinkParameters::is_plain) {
            self.parameters = None;
        }
    }
}
