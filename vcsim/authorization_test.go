package main

import (
	"slices"
	"testing"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

func (f *fixture) permit(c *vim25.Client, entity ref, user, role string, propagate bool) {
	f.t.Helper()
	m := object.NewAuthorizationManager(c)
	roles, err := m.RoleList(f.ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	permission := types.Permission{Principal: user, RoleId: roles.ByName(role).RoleId, Propagate: propagate}
	if err := m.SetEntityPermissions(f.ctx, entity, []types.Permission{permission}); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) privileges(entity ref, user string) []string {
	f.t.Helper()
	results, err := object.NewAuthorizationManager(f.client).FetchUserPrivilegeOnEntities(f.ctx, []ref{entity}, user)
	if err != nil {
		f.t.Fatal(err)
	}
	if len(results) != 1 || results[0].Entity.Value != entity.Value {
		f.t.Fatalf("%+v", results)
	}
	return results[0].Privileges
}

func TestOnlyTheOwnLoginIsAnAdministratorByItself(t *testing.T) {
	f := start(t)
	root := f.client.ServiceContent.RootFolder
	if !slices.Contains(f.privileges(root, "admin"), "Authorization.ModifyPermissions") {
		t.Error("the administrator is none")
	}
	if p := f.privileges(root, `VSPHERE.LOCAL\nobody`); len(p) != 0 {
		t.Errorf("a stranger has %v", p)
	}
}

func TestTheNearestPermissionCounts(t *testing.T) {
	f := start(t)
	root, dvs := f.client.ServiceContent.RootFolder, f.dvs()
	if _, err := object.NewAuthorizationManager(f.client).AddRole(f.ctx, "ports", []string{"DVSwitch.PortConfig"}); err != nil {
		t.Fatal(err)
	}
	f.permit(f.client, root, `VSPHERE.LOCAL\tf`, "ReadOnly", true)
	f.permit(f.client, *dvs.Parent, "tf@vsphere.local", "ports", true)
	if p := f.privileges(dvs.Self, `vsphere.local\TF`); !slices.Contains(p, "DVSwitch.PortConfig") {
		t.Errorf("on the switch: %v", p)
	}
	if p := f.privileges(f.vm("guest"), "tf@vsphere.local"); slices.Contains(p, "DVSwitch.PortConfig") || !slices.Contains(p, "System.Read") {
		t.Errorf("on a VM: %v", p)
	}
}

func TestAPermissionThatDoesNotPropagateEndsAtItsEntity(t *testing.T) {
	f := start(t)
	root := f.client.ServiceContent.RootFolder
	f.permit(f.client, root, "tf@vsphere.local", "ReadOnly", false)
	if p := f.privileges(root, "tf@vsphere.local"); len(p) == 0 {
		t.Error("nothing on the entity itself")
	}
	if p := f.privileges(f.vm("guest"), "tf@vsphere.local"); len(p) != 0 {
		t.Errorf("below: %v", p)
	}
}

func TestAPermissionLeavesThoseOfOthers(t *testing.T) {
	f := start(t)
	root := f.client.ServiceContent.RootFolder
	f.permit(f.client, root, "one@vsphere.local", "ReadOnly", true)
	f.permit(f.client, root, "two@vsphere.local", "ReadOnly", true)
	if p := f.privileges(root, "one@vsphere.local"); len(p) == 0 {
		t.Error("the first permission is gone")
	}
}

func TestASessionsPrivilegesOnAnESXi(t *testing.T) {
	f := start(t)
	c := f.esxi("esx-b")
	ask := func() []types.PrivilegeAvailability {
		own, err := session.NewManager(c).UserSession(f.ctx)
		if err != nil {
			t.Fatal(err)
		}
		res, err := methods.HasPrivilegeOnEntities(f.ctx, c, &types.HasPrivilegeOnEntities{
			This: *c.ServiceContent.AuthorizationManager, Entity: []ref{c.ServiceContent.RootFolder},
			SessionId: own.Key, PrivId: []string{"System.Read", "Host.Config.Network"},
		})
		if err != nil {
			t.Fatal(err)
		}
		return res.Returnval[0].PrivAvailability
	}
	if p := ask(); !p[0].IsGranted || !p[1].IsGranted {
		t.Errorf("the login of the site: %+v", p)
	}
	f.permit(c, c.ServiceContent.RootFolder, "root", "ReadOnly", true)
	if p := ask(); !p[0].IsGranted || p[1].IsGranted {
		t.Errorf("read only: %+v", p)
	}
}
