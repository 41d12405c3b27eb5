package main

import (
	"slices"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// portgroupMethods overrides methods of a distributed portgroup.
type portgroupMethods struct {
	*simulator.DistributedVirtualPortgroup
	v *vcenter
}

// AddDVPortgroupTask completes what stock makes: validated VLANs, unique port
// keys, uplink flag, configVersion.
func (d *switchMethods) AddDVPortgroupTask(ctx *simulator.Context, req *types.AddDVPortgroup_Task) soap.HasFault {
	task := d.addPortgroups(ctx, req.Spec, false, nil)
	return &methods.AddDVPortgroup_TaskBody{Res: &types.AddDVPortgroup_TaskResponse{Returnval: task}}
}

// CreateDVPortgroupTask makes one portgroup, which is the task's result.
func (d *switchMethods) CreateDVPortgroupTask(ctx *simulator.Context, req *types.CreateDVPortgroup_Task) soap.HasFault {
	task := d.addPortgroups(ctx, []types.DVPortgroupConfigSpec{req.Spec}, false, func(t *simulator.Task, made []ref) types.AnyType {
		ctx.Map.AtomicUpdate(freshContext(ctx), t, []types.PropertyChange{{Name: "info.name", Val: "CreateDVPortgroup_Task"}})
		return made[0]
	})
	return &methods.CreateDVPortgroup_TaskBody{Res: &types.CreateDVPortgroup_TaskResponse{Returnval: task}}
}

// addPortgroups starts the stock task with our part around it.
func (d *switchMethods) addPortgroups(
	ctx *simulator.Context, specs []types.DVPortgroupConfigSpec, uplink bool, result func(*simulator.Task, []ref) types.AnyType,
) ref {
	body := d.v.tasks.around(d.Self, func(stock execution) execution {
		return func(t *simulator.Task) (types.AnyType, types.BaseMethodFault) {
			for i := range specs {
				if c, ok := specs[i].DefaultPortConfig.(*types.VMwareDVSPortSetting); ok && c != nil {
					if f := checkVlan(c.Vlan, "spec.defaultPortConfig.vlan"); f != nil {
						return nil, f
					}
				}
				if f := d.v.nameTaken(specs[i].Name, d.Parent, ref{}); f != nil {
					return nil, f
				}
				specs[i].ConfigVersion = firstPortgroupVersion
			}
			before := slices.Clone(d.Portgroup)
			if _, f := stock(t); f != nil {
				return nil, f
			}
			var made []ref
			for _, r := range d.Portgroup {
				if !slices.Contains(before, r) {
					d.completePortgroup(ctx, r, uplink)
					made = append(made, r)
				}
			}
			d.portgroupsAdded(ctx, made, uplink)
			if result == nil {
				return nil, nil
			}
			return result(t, made), nil
		}
	}, func() soap.HasFault {
		return d.DistributedVirtualSwitch.AddDVPortgroupTask(ctx, &types.AddDVPortgroup_Task{This: d.Self, Spec: specs})
	})
	return body.(*methods.AddDVPortgroup_TaskBody).Res.Returnval
}

// completePortgroup gives a new portgroup its ports and the fields stock leaves out.
func (d *switchMethods) completePortgroup(ctx *simulator.Context, r ref, uplink bool) {
	pg := lookup[*simulator.DistributedVirtualPortgroup](d.v.registry, r)
	ctx.WithLock(pg, func() {
		cfg := pg.Config
		cfg.Uplink = &uplink
		if cfg.AutoExpand == nil {
			cfg.AutoExpand = types.NewBool(cfg.Type == earlyBinding)
		}
		if cfg.BackingType == "" {
			cfg.BackingType = string(types.DistributedVirtualPortgroupBackingTypeStandard)
		}
		if c, ok := cfg.DefaultPortConfig.(*types.VMwareDVSPortSetting); ok {
			completeSetting(c)
			markInherited(c, false)
		}
		if cfg.Type == ephemeral {
			cfg.NumPorts = 0
		}
		d.v.mu.Lock()
		s := d.v.switchOf(d.DistributedVirtualSwitch)
		keys := s.grow(s.learn(&cfg), int(cfg.NumPorts))
		d.v.mu.Unlock()
		changes := []types.PropertyChange{{Name: "config", Val: cfg}, {Name: "portKeys", Val: keys}}
		if uplink {
			changes = append(changes, types.PropertyChange{Name: "tag", Val: []types.Tag{{Key: "SYSTEM/DVS.UPLINKPG"}}})
		}
		ctx.Update(pg, changes)
	})
}

// portgroupsAdded updates the switch's own configuration.
func (d *switchMethods) portgroupsAdded(ctx *simulator.Context, made []ref, uplink bool) {
	cfg := *d.Config.(*types.VMwareDVSConfigInfo)
	if uplink {
		cfg.UplinkPortgroup = append(slices.Clone(cfg.UplinkPortgroup), made...)
	}
	cfg.ConfigVersion = nextVersion(cfg.ConfigVersion)
	ctx.Update(d.DistributedVirtualSwitch, []types.PropertyChange{{Name: "config", Val: types.BaseDVSConfigInfo(&cfg)}})
}

// ReconfigureDVPortgroupTask replaces the stock method, which clears every
// field that the specification leaves out: here only what it sets changes.
func (p *portgroupMethods) ReconfigureDVPortgroupTask(ctx *simulator.Context, req *types.ReconfigureDVPortgroup_Task) soap.HasFault {
	task := runTask(ctx, p.DistributedVirtualPortgroup, "reconfigureDvPortgroup", func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		return nil, p.reconfigure(ctx, &req.Spec)
	})
	return &methods.ReconfigureDVPortgroup_TaskBody{Res: &types.ReconfigureDVPortgroup_TaskResponse{Returnval: task}}
}

// RenameTask renames the portgroup everywhere its name is shown.
func (p *portgroupMethods) RenameTask(ctx *simulator.Context, req *types.Rename_Task) soap.HasFault {
	task := runTask(ctx, p.DistributedVirtualPortgroup, "rename", func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		return nil, p.reconfigure(ctx, &types.DVPortgroupConfigSpec{Name: req.NewName})
	})
	return &methods.Rename_TaskBody{Res: &types.Rename_TaskResponse{Returnval: task}}
}

// DestroyTask refuses while a port is connected.
func (p *portgroupMethods) DestroyTask(ctx *simulator.Context, req *types.Destroy_Task) soap.HasFault {
	return p.v.tasks.around(p.Self, func(stock execution) execution {
		return func(t *simulator.Task) (types.AnyType, types.BaseMethodFault) {
			p.v.mu.Lock()
			var used *dvport
			if s, g := p.v.portgroupByKey(p.Key); g != nil {
				used = s.connected(g)
			}
			p.v.mu.Unlock()
			if used != nil {
				return nil, portgroupInUse(used.key)
			}
			return stock(t)
		}
	}, func() soap.HasFault { return p.DistributedVirtualPortgroup.DestroyTask(ctx, req) })
}

func (p *portgroupMethods) reconfigure(ctx *simulator.Context, spec *types.DVPortgroupConfigSpec) types.BaseMethodFault {
	cfg := p.Config
	if spec.ConfigVersion != "" && spec.ConfigVersion != cfg.ConfigVersion {
		return &types.ConcurrentAccess{}
	}
	oldName := cfg.Name
	if f := p.checkSpec(spec); f != nil {
		return f
	}
	p.merge(&cfg, spec)
	changes := []types.PropertyChange{}
	if cfg.Name != oldName {
		changes = append(changes,
			types.PropertyChange{Name: "name", Val: cfg.Name},
			types.PropertyChange{Name: "summary.name", Val: cfg.Name})
	}

	p.v.mu.Lock()
	s, g := p.v.portgroupByKey(p.Key)
	if n := int(spec.NumPorts); n != 0 && n != len(g.ports) {
		if used := s.connectedCount(g); n < used {
			p.v.mu.Unlock()
			return portgroupInUse(g.name)
		}
		s.grow(g, max(0, n-len(g.ports)))
		s.shrink(g, n)
		cfg.NumPorts = int32(len(g.ports))
		changes = append(changes, types.PropertyChange{Name: "portKeys", Val: slices.Clone(g.ports)})
	}
	cfg.ConfigVersion = nextVersion(cfg.ConfigVersion)
	s.learn(&cfg)
	p.v.nics.touch()
	p.v.mu.Unlock()

	ctx.Update(p.DistributedVirtualPortgroup, append(changes, types.PropertyChange{Name: "config", Val: cfg}))
	if cfg.Name != oldName {
		p.v.worker.later(func(ctx *simulator.Context) { p.renamed(ctx, oldName, cfg.Name) })
	}
	p.v.postLater(&types.DVPortgroupReconfiguredEvent{DVPortgroupEvent: p.event(), ConfigSpec: *spec})
	return nil
}

// checkSpec tells why a specification can't be applied.
func (p *portgroupMethods) checkSpec(spec *types.DVPortgroupConfigSpec) types.BaseMethodFault {
	if c, ok := spec.DefaultPortConfig.(*types.VMwareDVSPortSetting); ok && c != nil {
		if f := checkVlan(c.Vlan, "spec.defaultPortConfig.vlan"); f != nil {
			return f
		}
	}
	if spec.Name == "" || spec.Name == p.Config.Name {
		return nil
	}
	return p.v.nameTaken(spec.Name, p.Parent, p.Self)
}

// nameTaken refuses a name that another child of the folder has. vCenter
// compares names in a folder without regard to case.
func (v *vcenter) nameTaken(name string, folder *ref, self ref) types.BaseMethodFault {
	parent := lookup[*simulator.Folder](v.registry, *folder)
	if parent == nil {
		return nil
	}
	for _, r := range parent.ChildEntity {
		if o, ok := v.registry.Get(r).(mo.Entity); ok && r != self && strings.EqualFold(entityName(o), name) {
			return &types.DuplicateName{Name: name, Object: r}
		}
	}
	return nil
}

// entityName is the name of an inventory object; networks and switches keep it in a field of their own.
func entityName(e mo.Entity) string {
	switch o := e.(type) {
	case *simulator.DistributedVirtualPortgroup:
		return o.Name
	case *simulator.DistributedVirtualSwitch:
		return o.Name
	case *mo.Network:
		return o.Name
	}
	return e.Entity().Name
}

// merge applies what a specification sets to a configuration; port counts are the caller's.
func (p *portgroupMethods) merge(cfg *types.DVPortgroupConfigInfo, spec *types.DVPortgroupConfigSpec) {
	if c, ok := spec.DefaultPortConfig.(*types.VMwareDVSPortSetting); ok && c != nil {
		defaults := &types.VMwareDVSPortSetting{}
		if old, ok := cfg.DefaultPortConfig.(*types.VMwareDVSPortSetting); ok {
			defaults = deepCopy(old)
		}
		mergeDefaults(defaults, c)
		cfg.DefaultPortConfig = defaults
	}
	for _, f := range []struct {
		set string
		dst *string
	}{
		{spec.Name, &cfg.Name},
		{spec.Description, &cfg.Description},
		{spec.Type, &cfg.Type},
		{spec.PortNameFormat, &cfg.PortNameFormat},
		{spec.VmVnicNetworkResourcePoolKey, &cfg.VmVnicNetworkResourcePoolKey},
	} {
		if f.set != "" {
			*f.dst = f.set
		}
	}
	if spec.Policy != nil {
		cfg.Policy = spec.Policy
	}
	if spec.AutoExpand != nil {
		cfg.AutoExpand = spec.AutoExpand
	}
	if spec.Scope != nil {
		cfg.Scope = spec.Scope
	}
	blobs := slices.Clone(cfg.VendorSpecificConfig)
	for _, b := range spec.VendorSpecificConfig {
		i := slices.IndexFunc(blobs, func(have types.DistributedVirtualSwitchKeyedOpaqueBlob) bool { return have.Key == b.Key })
		if i < 0 {
			blobs = append(blobs, b)
		} else {
			blobs[i] = b
		}
	}
	cfg.VendorSpecificConfig = blobs
}

// renamed updates the list of names on the switch.
func (p *portgroupMethods) renamed(ctx *simulator.Context, oldName, newName string) {
	d := lookup[*simulator.DistributedVirtualSwitch](p.v.registry, *p.Config.DistributedVirtualSwitch)
	if d == nil {
		return
	}
	ctx.WithLock(d, func() {
		names := slices.Clone(d.Summary.PortgroupName)
		if i := slices.Index(names, oldName); i >= 0 {
			names[i] = newName
		}
		ctx.Update(d, []types.PropertyChange{{Name: "summary.portgroupName", Val: names}})
	})
}

func (p *portgroupMethods) event() types.DVPortgroupEvent {
	e := types.DVPortgroupEvent{Event: types.Event{
		Datacenter: p.v.datacenterArgument(p.DistributedVirtualPortgroup),
		Net: &types.NetworkEventArgument{
			EntityEventArgument: types.EntityEventArgument{Name: p.Name}, Network: p.Self,
		},
	}}
	if d := lookup[*simulator.DistributedVirtualSwitch](p.v.registry, *p.Config.DistributedVirtualSwitch); d != nil {
		e.Dvs = &types.DvsEventArgument{EntityEventArgument: types.EntityEventArgument{Name: d.Name}, Dvs: d.Self}
	}
	return e
}
