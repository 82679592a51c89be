//! The list of a new container's init.

use crate::hooks::{self, Moment};
use crate::launch::protocol::{FromInit, ToInit};
use crate::namespaces::{Kind, NamespaceStep};
use crate::plan::common::{ending, getting_ready};
use crate::plan::{InitStep, Origin, Planned, annotations};
use crate::rootfs::RootfsStep;
use crate::rootfs::steps::MountKind;
use crate::spec::Field;

use super::Parts;

impl Parts<'_> {
    pub(super) fn init(&self) -> Vec<Planned<InitStep>> {
        let mut steps = Vec::new();
        self.enter_namespaces(&mut steps);
        let mut cgroup_section = Some(self.cgroup_section());
        for planned in &self.rootfs.build {
            let is_cgroup = matches!(&planned.step, RootfsStep::Mount(mount) if matches!(mount.kind, MountKind::Cgroup(_)));
            if is_cgroup {
                steps.extend(cgroup_section.take().unwrap_or_default());
            }
            steps.push(planned.clone().into_step(InitStep::Rootfs));
        }
        steps.extend(self.process.terminal.iter().map(|planned| planned.clone().into_step(InitStep::Process)));
        // Before the hooks: messages are heard in the order in which the launcher says them.
        steps.extend(cgroup_section.take().unwrap_or_default());
        if self.delegates {
            steps.push(Planned::new(InitStep::Send(FromInit::Rooted), annotations::field(annotations::DELEGATED)));
        }
        if self.waits_for_hooks() {
            steps.push(Planned::new(InitStep::Send(FromInit::RootfsBuilt), Field::new("hooks")));
            steps.push(Planned::new(InitStep::Await(ToInit::HooksDone), Field::new("hooks")));
        }
        self.hooks(Moment::CreateContainer, &mut steps);
        steps.extend(self.rootfs.enter.iter().map(|planned| planned.clone().into_step(InitStep::Rootfs)));
        steps.extend(self.process.become_user.iter().map(|planned| planned.clone().into_step(InitStep::Process)));
        steps.extend(getting_ready(self.request.start));
        self.hooks(Moment::StartContainer, &mut steps);
        steps.extend(ending(&self.process));
        steps
    }

    fn hooks(&self, moment: Moment, steps: &mut Vec<Planned<InitStep>>) {
        let list = moment.of(self.hooks);
        if !list.is_empty() {
            steps.push(Planned::new(InitStep::Hooks(hooks::steps(list, moment)), Field::new("hooks").key(moment.name())));
        }
    }

    fn enter_namespaces(&self, steps: &mut Vec<Planned<InitStep>>) {
        let user = || self.field(Kind::User);
        if !self.maps.is_empty() {
            steps.push(Planned::new(InitStep::Await(ToInit::IdsMapped), user()));
        }
        if !self.net_devices.is_empty() {
            // Kernel parameters of these devices are set later, when they are there.
            steps.push(Planned::new(InitStep::Await(ToInit::DevicesMoved), Field::new("linux.netDevices")));
        }
        let mut namespace = |step: NamespaceStep, origin: Origin| steps.push(Planned::new(InitStep::Namespace(step), origin));
        if self.namespaces.is_new(Kind::Time) {
            // With other ids than those on the host init could not write the offsets: the host's procfs has no file of its then.
            namespace(NamespaceStep::NewTime { offsets: self.offsets.clone() }, self.field(Kind::Time));
        }
        if self.namespaces.has(Kind::User) {
            let (uid, gid) = self.root_ids;
            let drop_groups = !annotations::keeps_groups(self.annotations);
            namespace(NamespaceStep::BecomeRoot { uid, gid, drop_groups }, user());
        }
        if self.namespaces.is_new(Kind::Network) {
            namespace(NamespaceStep::LoopbackUp, self.field(Kind::Network));
        }
        if let Some((kind, path)) = self.namespaces.joined.iter().find(|(kind, _)| *kind == Kind::Mount) {
            namespace(NamespaceStep::Join { kind: *kind, path: path.clone() }, self.field(Kind::Mount));
        }
        steps.extend(self.process.first.iter().map(|planned| planned.clone().into_step(InitStep::Process)));
    }

    /// The cgroup namespace shows as its root the groups that the process is in when it is made: it has to be in them.
    fn cgroup_section(&self) -> Vec<Planned<InitStep>> {
        let mut steps = Vec::new();
        if self.has_cgroup_v2 && self.direct() {
            steps.push(Planned::new(InitStep::Await(ToInit::CgroupJoined), self.cgroup_origin.clone()));
        }
        if self.has_cgroup_v1 && self.direct() {
            steps.push(Planned::new(InitStep::JoinCgroups, self.cgroup_origin.clone()));
        }
        if self.namespaces.is_new(Kind::Cgroup) {
            let unshare = NamespaceStep::Unshare { kinds: vec![Kind::Cgroup] };
            steps.push(Planned::new(InitStep::Namespace(unshare), self.field(Kind::Cgroup)));
        }
        if let Some((kind, path)) = self.namespaces.joined.iter().find(|(kind, _)| *kind == Kind::Cgroup) {
            let join = NamespaceStep::Join { kind: *kind, path: path.clone() };
            steps.push(Planned::new(InitStep::Namespace(join), self.field(Kind::Cgroup)));
        }
        steps
    }
}
